//! Frames of an exec connection: a channel byte, a length (32 bits, big endian), the bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum length of a frame, bytes; no client of the agent sends a longer one.
const MAX_FRAME: u32 = 1 << 20;

/// Content of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Channel {
    /// Input of the process; an empty frame is its end.
    Stdin = 0,
    /// Standard output of the process.
    Stdout = 1,
    /// Standard error of the process.
    Stderr = 2,
    /// Exit code as text: the last frame.
    Exit = 3,
    /// Reason why the process could not be run, as text: the last frame.
    Error = 4,
    /// Size of the terminal: `TerminalSize` as JSON.
    Resize = 5,
}

impl Channel {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Stdin, Self::Stdout, Self::Stderr, Self::Exit, Self::Error, Self::Resize]
            .into_iter()
            .find(|channel| *channel as u8 == byte)
    }
}

/// Writes one frame.
///
/// # Errors
/// Errors of the connection.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), channel: Channel, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(bytes.len() + 5);
    frame.push(channel as u8);
    frame.extend(length.to_be_bytes());
    frame.extend(bytes);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Reads one frame; returns `None` at the end of the connection.
///
/// # Errors
/// Errors of the connection, or a malformed frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Channel, Vec<u8>)>> {
    let mut head = [0; 5];
    if let Err(error) = from.read_exact(&mut head).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let channel = Channel::from_byte(head[0]).filter(|_| length <= MAX_FRAME);
    let channel = channel.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a frame of an exec"))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    from.read_exact(&mut bytes).await?;
    Ok(Some((channel, bytes)))
}
