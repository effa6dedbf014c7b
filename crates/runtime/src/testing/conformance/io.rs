//! The suite's ends of the pipes that a backend reads and writes.

use std::{
    io::{self, pipe},
    os::fd::OwnedFd,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe::{Receiver, Sender},
};

use super::{
    kit::Kit,
    transcript::{Outcome, Stop},
};
use crate::{ContainerId, Descendants, ExecId, ExecRequest, ExecStdio, Runtime};

/// Exit code and output of an exec.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Returns the end for the backend and the end to read from.
pub(super) fn output() -> io::Result<(OwnedFd, Receiver)> {
    let (reader, writer) = pipe()?;
    Ok((writer.into(), Receiver::from_owned_fd(reader.into())?))
}

/// Returns the end for the backend and the end to write to.
pub(super) fn input() -> io::Result<(OwnedFd, Sender)> {
    let (reader, writer) = pipe()?;
    Ok((reader.into(), Sender::from_owned_fd(writer.into())?))
}

/// Reads until the backend closes its end.
pub(super) async fn read_all(mut from: Receiver) -> io::Result<String> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl<R: Runtime> Kit<'_, R> {
    /// Returns an exec request with a new id.
    pub(super) fn exec_request(&self, container: &ContainerId, command: &[&str]) -> ExecRequest {
        let id = ExecId(format!("exec-{:x}", crate::clock::now().as_nanosecond()));
        let command = command.iter().map(|&word| word.to_owned()).collect();
        ExecRequest {
            id,
            container: container.clone(),
            command,
            tty: false,
            size: None,
            descendants: Descendants::Stay,
        }
    }

    /// Runs a command without input.
    pub(super) async fn exec(&self, container: &ContainerId, command: &[&str]) -> Outcome<Output> {
        let (stdout, out) = output()?;
        let (stderr, err) = output()?;
        let stdio = ExecStdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
        let status = self.runtime.exec(self.exec_request(container, command), stdio);
        let (status, stdout, stderr) = tokio::join!(status, read_all(out), read_all(err));
        Ok(Output { code: status?.code, stdout: stdout?, stderr: stderr? })
    }

    /// Runs a command that reads `text` as its input.
    pub(super) async fn exec_with(&self, container: &ContainerId, command: &[&str], text: &str) -> Outcome<Output> {
        let (stdin, mut to) = input()?;
        let (stdout, out) = output()?;
        let (stderr, err) = output()?;
        let stdio = ExecStdio { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        let status = self.runtime.exec(self.exec_request(container, command), stdio);
        let write = async {
            let written = to.write_all(text.as_bytes()).await;
            drop(to);
            written
        };
        let (status, written, stdout, stderr) = tokio::join!(status, write, read_all(out), read_all(err));
        let code = status?.code;
        written.map_err(|error| Stop::Failed(format!("the input was closed before its end was written: {error}")))?;
        Ok(Output { code, stdout: stdout?, stderr: stderr? })
    }
}
