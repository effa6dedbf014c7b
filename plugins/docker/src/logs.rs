//! Output of containers, from Docker's own log files.

use std::{collections::BTreeMap, os::fd::OwnedFd};

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
        let Some(found) = self.client.find(id.as_str()).await? else {
            return Err(Error::new(ErrorKind::NotFound, format!("{}: it does not exist", tried())));
        };
        let runs = found.state.is_some_and(|state| state.running == Some(true));
        let mut sink =
            BufWriter::new(writer(sink).map_err(|error| {
                Error::new(ErrorKind::Invalid, format!("{}: its receiver", tried())).caused_by(&error)
            })?);
        let options = LogsOptions { stdout: true, stderr: true, timestamps: true, ..LogsOptions::default() };
        let mut written = Box::pin(self.client.api().logs(id.as_str(), Some(options)));
        let mut lines = Lines::default();
        while let Some(message) = written.next().await {
            let message = message.map_err(|error| failed(tried(), &error))?;
            if let Some(line) = lines.add(&message)
                && sink.write_all(&line).await.is_err()
            {
                // Nobody reads the rest.
                return Ok(());
            }
        }
        if !runs {
            // As above.
            sink.write_all(&lines.end()).await.ok();
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

/// Converter from Docker's messages into CRI log lines.
#[derive(Default)]
struct Lines {
    /// Streams whose last message is a part of a line, and its time.
    open: BTreeMap<&'static str, Vec<u8>>,
}

impl Lines {
    /// Converts one message, `TIME TEXT`. Docker cuts at 16 KiB, as CRI does. A message of that length without an end
    /// of line is a part of a line; a shorter one is its last part, whose end the driver `local` leaves out.
    fn add(&mut self, message: &LogOutput) -> Option<Vec<u8>> {
        let (stream, message) = match message {
            LogOutput::StdErr { message } => ("stderr", message),
            LogOutput::StdOut { message } | LogOutput::Console { message } => ("stdout", message),
            LogOutput::StdIn { .. } => return None,
        };
        let space = message.iter().position(|byte| *byte == b' ')?;
        let (time, text) = (&message[..space], &message[space + 1..]);
        let (is_part, text) = match text.strip_suffix(b"\n") {
            Some(text) => (false, text),
            None => (text.len() >= PART, text),
        };
        match is_part {
            true => drop(self.open.insert(stream, time.to_owned())),
            false => drop(self.open.remove(stream)),
        }
        Some(framed(time, stream, if is_part { "P" } else { "F" }, text))
    }

    /// Ends the lines that the container did not end: output of 16 KiB without an end of line looks like a part of a
    /// line.
    fn end(self) -> Vec<u8> {
        self.open.iter().flat_map(|(stream, time)| framed(time, stream, "F", b"")).collect()
    }
}

fn framed(time: &[u8], stream: &str, tag: &str, text: &[u8]) -> Vec<u8> {
    [time, b" ", stream.as_bytes(), b" ", tag.as_bytes(), b" ", text, b"\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::{Lines, LogOutput, PART};

    // R-LOG-4.
    #[test]
    fn messages_become_cri_lines() {
        let line = |message: &LogOutput| Lines::default().add(message);
        let out = |text: &'static str| line(&LogOutput::StdOut { message: text.into() });
        let err = line(&LogOutput::StdErr { message: "2026-01-01T00:00:00.000000001Z a b \n".into() });
        assert_eq!(err.as_deref(), Some(&b"2026-01-01T00:00:00.000000001Z stderr F a b \n"[..]));
        let part = format!("T {}", "x".repeat(PART));
        let expected = format!("T stdout P {}\n", "x".repeat(PART));
        assert_eq!(line(&LogOutput::StdOut { message: part.into() }), Some(expected.into_bytes()));
        assert_eq!(out("T last part").as_deref(), Some(&b"T stdout F last part\n"[..]), "as the driver local has it");
        assert_eq!(out("T \n").as_deref(), Some(&b"T stdout F \n"[..]));
    }

    // R-LOG-4.
    #[test]
    fn a_part_that_nothing_follows_is_ended() {
        let part = || format!("T1 {}", "x".repeat(PART));
        let mut lines = Lines::default();
        for message in [
            LogOutput::StdOut { message: part().into() },
            LogOutput::StdErr { message: part().into() },
            LogOutput::StdErr { message: "T2 end".into() },
        ] {
            lines.add(&message).expect("it is a line");
        }
        assert_eq!(lines.end(), b"T1 stdout F \n", "the other stream's line has ended");
        let mut lines = Lines::default();
        lines.add(&LogOutput::Console { message: "T1 whole\n".into() }).expect("it is a line");
        assert_eq!(lines.end(), b"");
    }
}
