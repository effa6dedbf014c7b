//! Output of containers, from Docker's own log files.

use std::os::fd::OwnedFd;

use bollard::{container::LogOutput, query_parameters::LogsOptions};
use futures_util::StreamExt;
use stanchion_sdk::runtime::{ContainerId, Error, ErrorKind, Result};
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt, BufWriter},
    net::unix::pipe,
};

use crate::{Docker, client::failed};

impl Docker {
    /// Copies all output that is kept into `sink`, as CRI log lines.
    pub(crate) async fn copy_logs(&self, id: &ContainerId, sink: OwnedFd) -> Result<()> {
        let tried = || format!("reading the output of container {id}");
        if self.client.find(id.as_str()).await?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: it does not exist", tried())));
        }
        let mut sink =
            BufWriter::new(writer(sink).map_err(|error| {
                Error::new(ErrorKind::Invalid, format!("{}: its receiver", tried())).caused_by(&error)
            })?);
        let options = LogsOptions { stdout: true, stderr: true, timestamps: true, ..LogsOptions::default() };
        let mut written = Box::pin(self.client.api().logs(id.as_str(), Some(options)));
        while let Some(message) = written.next().await {
            let message = message.map_err(|error| failed(tried(), &error))?;
            if let Some(line) = line(&message)
                && sink.write_all(&line).await.is_err()
            {
                // Nobody reads the rest.
                return Ok(());
            }
        }
        sink.flush().await.ok();
        Ok(())
    }
}

/// Returns a writer into a pipe, or into any other file.
fn writer(sink: OwnedFd) -> std::io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    let file = sink.try_clone()?;
    Ok(match pipe::Sender::from_owned_fd(sink) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(File::from_std(file.into())),
    })
}

/// Length at which Docker cuts lines into messages, bytes.
const PART: usize = 16 << 10;

/// Converts one message of Docker's, `TIME TEXT`, into a CRI log line. Docker cuts at 16 KiB, as CRI does. A message of
/// that length without an end of line is a part of a line; a shorter one is its last part, whose end the driver `local`
/// leaves out.
fn line(message: &LogOutput) -> Option<Vec<u8>> {
    let (stream, message) = match message {
        LogOutput::StdErr { message } => ("stderr", message),
        LogOutput::StdOut { message } | LogOutput::Console { message } => ("stdout", message),
        LogOutput::StdIn { .. } => return None,
    };
    let space = message.iter().position(|byte| *byte == b' ')?;
    let (time, text) = (&message[..space], &message[space + 1..]);
    let (tag, text) = match text.strip_suffix(b"\n") {
        Some(text) => ("F", text),
        None if text.len() >= PART => ("P", text),
        None => ("F", text),
    };
    let mut line = Vec::with_capacity(message.len() + 16);
    for part in [time, b" ", stream.as_bytes(), b" ", tag.as_bytes(), b" ", text, b"\n"] {
        line.extend_from_slice(part);
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::{LogOutput, PART, line};

    // R-LOG-4.
    #[test]
    fn messages_become_cri_lines() {
        let out = |text: &'static str| line(&LogOutput::StdOut { message: text.into() });
        let err = line(&LogOutput::StdErr { message: "2026-01-01T00:00:00.000000001Z a b \n".into() });
        assert_eq!(err.as_deref(), Some(&b"2026-01-01T00:00:00.000000001Z stderr F a b \n"[..]));
        let part = format!("T {}", "x".repeat(PART));
        let expected = format!("T stdout P {}\n", "x".repeat(PART));
        assert_eq!(line(&LogOutput::StdOut { message: part.into() }), Some(expected.into_bytes()));
        assert_eq!(out("T last part").as_deref(), Some(&b"T stdout F last part\n"[..]), "as the driver local has it");
        assert_eq!(out("T \n").as_deref(), Some(&b"T stdout F \n"[..]));
    }
}
