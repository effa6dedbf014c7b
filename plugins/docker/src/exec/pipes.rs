//! The caller's descriptors, and a connection to Docker, which carries a process's input and output.

use std::io;

use stanchion_sdk::runtime::ExecStdio;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
};

/// Size of one read, bytes.
const CHUNK: usize = 32 << 10;
/// Size of the header of every piece of output without a terminal, bytes: stream, three zeros, length.
const HEADER: usize = 8;

/// The caller's ends of input and outputs.
pub(super) struct Pipes {
    input: Option<Receiver>,
    outputs: Outputs,
    tty: bool,
}

struct Outputs {
    stdout: Option<Sender>,
    stderr: Option<Sender>,
    /// First output, while it may be Docker's own message.
    refusal: Option<Vec<u8>>,
}

/// Beginning of Docker's message, in place of a process's output, that the process could not be started.
const REFUSAL: &[u8] = b"OCI runtime exec failed";

impl Pipes {
    /// Takes the caller's ends. Must be called within a tokio runtime.
    pub fn new(stdio: ExecStdio, tty: bool) -> io::Result<Self> {
        let output = |fd: Option<_>| fd.map(Sender::from_owned_fd).transpose();
        let input = stdio.stdin.map(Receiver::from_owned_fd).transpose()?;
        let (stdout, stderr) = (output(stdio.stdout)?, output(stdio.stderr)?);
        let outputs = Outputs { stdout, stderr, refusal: Some(Vec::new()) };
        Ok(Self { input, outputs, tty })
    }

    /// Copies until the process's outputs have ended. Output that looks like Docker's own refusal, with nothing else,
    /// is kept back and returned: the caller finds out which it is.
    pub async fn drive(self, connection: impl AsyncRead + AsyncWrite) -> Kept {
        let Self { input, mut outputs, tty } = self;
        let (mut from, mut to) = tokio::io::split(connection);
        let read = async {
            let read = match tty {
                true => outputs.read_raw(&mut from).await,
                false => outputs.read_framed(&mut from).await,
            };
            if let Err(error) = read {
                tracing::debug!(%error, "the connection of a process broke off");
            }
        };
        let write = async {
            if let Some(mut input) = input {
                // The process may close its input whenever it likes.
                tokio::io::copy(&mut input, &mut to).await.ok();
                to.shutdown().await.ok();
            }
            std::future::pending::<()>().await;
        };
        // Cancel-safe: when the outputs have ended, nobody would read the rest of the input.
        tokio::select! {
            () = read => {}
            () = write => {}
        }
        Kept { text: outputs.refusal.take().unwrap_or_default(), stdout: outputs.stdout }
    }
}

/// Output that was kept back.
pub(super) struct Kept {
    text: Vec<u8>,
    stdout: Option<Sender>,
}

impl Kept {
    /// Returns the value for no output.
    pub fn nothing() -> Self {
        Self { text: Vec::new(), stdout: None }
    }

    /// Returns Docker's message, if it may be one.
    pub fn text(&self) -> Option<String> {
        (self.text.starts_with(REFUSAL)).then(|| String::from_utf8_lossy(&self.text).trim().to_owned())
    }

    /// Writes it to the standard output: it was the process's after all.
    pub async fn release(mut self) {
        give(&mut self.stdout, &self.text).await;
    }
}

impl Outputs {
    /// Writes to the standard output.
    async fn give(&mut self, bytes: &[u8]) {
        let Some(kept) = &mut self.refusal else { return give(&mut self.stdout, bytes).await };
        // Docker sends its message in one piece, so a process's own first letters do not wait for more.
        let is_refusal = if kept.is_empty() { bytes.starts_with(REFUSAL) } else { kept.len() < CHUNK };
        kept.extend_from_slice(bytes);
        if !is_refusal {
            let kept = self.refusal.take().unwrap_or_default();
            give(&mut self.stdout, &kept).await;
        }
    }

    async fn read_raw(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = from.read(&mut chunk).await?;
            if length == 0 {
                return Ok(());
            }
            self.give(&chunk[..length]).await;
        }
    }

    async fn read_framed(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let mut header = [0; HEADER];
            match from.read_exact(&mut header).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read.map(drop)?,
            }
            let [stream @ 0..=2, 0, 0, 0, length @ ..] = header else {
                // No frame: a message of Docker itself.
                let length = from.read(&mut chunk[HEADER..]).await?;
                chunk[..HEADER].copy_from_slice(&header);
                self.give(&chunk[..HEADER + length]).await;
                return self.read_raw(from).await;
            };
            let mut left = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
            while left > 0 {
                let length = left.min(chunk.len());
                let length = from.read(&mut chunk[..length]).await?;
                if length == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= length;
                match stream {
                    2 => give(&mut self.stderr, &chunk[..length]).await,
                    _ => self.give(&chunk[..length]).await,
                }
            }
        }
    }
}

/// Writes to `to`, if anybody reads. The process must not notice that nobody does.
async fn give(to: &mut Option<Sender>, bytes: &[u8]) {
    if let Some(sender) = to
        && sender.write_all(bytes).await.is_err()
    {
        *to = None;
    }
}

#[cfg(test)]
mod tests {
    use std::{io::pipe, os::fd::OwnedFd};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn output() -> (OwnedFd, Receiver) {
        let (reader, writer) = pipe().expect("a pipe");
        (writer.into(), Receiver::from_owned_fd(reader.into()).expect("a pipe"))
    }

    /// Returns what arrives on both outputs when Docker sends `sent`.
    async fn received(sent: &[u8], tty: bool) -> (String, String) {
        let ((stdout, mut out), (stderr, mut err)) = (output(), output());
        let stdio = ExecStdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
        let pipes = Pipes::new(stdio, tty).expect("pipes");
        let (ours, mut dockers) = tokio::io::duplex(64);
        let send = async {
            dockers.write_all(sent).await.expect("sent");
            drop(dockers);
        };
        let mut texts = (String::new(), String::new());
        let drive = async { pipes.drive(ours).await.release().await };
        let (.., one, two) =
            tokio::join!(drive, send, out.read_to_string(&mut texts.0), err.read_to_string(&mut texts.1));
        one.and(two).expect("received");
        texts
    }

    #[tokio::test]
    async fn frames_are_taken_apart() {
        let long = "x".repeat(1000);
        let mut sent = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04err\n\x01\0\0\0\0\0\x03\xe8".to_vec();
        sent.extend_from_slice(long.as_bytes());
        assert_eq!(received(&sent, false).await, (format!("out{long}"), "err\n".to_owned()));
    }

    #[tokio::test]
    async fn what_is_no_frame_is_text() {
        let text = "OCI: no frame\r\n";
        assert_eq!(received(text.as_bytes(), false).await, (text.to_owned(), String::new()));
    }

    #[tokio::test]
    async fn a_refusal_is_kept_back_for_the_caller() {
        let text = "OCI runtime exec failed: no such file\r\n";
        assert_eq!(received(text.as_bytes(), true).await, (text.to_owned(), String::new()), "released");
        let (stdout, mut out) = output();
        let pipes = Pipes::new(ExecStdio { stdout: Some(stdout), ..ExecStdio::default() }, true).expect("pipes");
        let kept = pipes.drive(tokio::io::join(text.as_bytes(), tokio::io::sink())).await;
        assert_eq!(kept.text().as_deref(), Some(text.trim()));
        drop(kept);
        let mut got = String::new();
        out.read_to_string(&mut got).await.expect("read");
        assert_eq!(got, "");
    }

    #[tokio::test]
    async fn a_terminal_may_write_anything() {
        let text = "\x01\x02 no header\n, no line";
        assert_eq!(received(text.as_bytes(), true).await, (text.to_owned(), String::new()));
    }
}
