//! Runs a command in a container.

use std::{
    io,
    os::fd::OwnedFd,
    pin::pin,
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use stanchion_runtime::{ContainerId, Descendants, Error, ErrorKind, ExecId, ExecRequest, ExecStdio, Runtime};
use tokio::{io::AsyncReadExt, net::unix::pipe, time::timeout};

/// Maximum length of a command's output that is kept, bytes (R-PRB-13).
const MAX_OUTPUT: usize = 10 << 10;

/// The exit code and the output of a command that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    /// Returns stdout and stderr together, at most [`MAX_OUTPUT`] bytes.
    pub fn output(&self) -> String {
        let mut output = format!("{}{}", self.stdout, self.stderr);
        let end = (0..=output.len().min(MAX_OUTPUT)).rev().find(|end| output.is_char_boundary(*end));
        output.truncate(end.unwrap_or(0));
        output
    }
}

/// The time for which the output of a command is read on after its end, if the backend has not closed it.
const DRAIN: Duration = Duration::from_millis(500);

/// Runs a command in a container. Dropping the future before the command has ended kills the command's processes (R-PRB-35);
/// `descendants` decides about processes that outlive the command. The exit code counts at once, even if another process holds the
/// output open.
pub(crate) async fn run<R: Runtime>(
    runtime: &R,
    container: &ContainerId,
    command: &[String],
    descendants: Descendants,
) -> Result<CommandOutput, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = ExecId(format!("run-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let no_pipe = |error: io::Error| Error::new(ErrorKind::Other, "making pipes for a command").caused_by(&error);
    let (out, stdout) = output_pipe().map_err(no_pipe)?;
    let (err, stderr) = output_pipe().map_err(no_pipe)?;
    let (container, command) = (container.clone(), command.to_vec());
    let request = ExecRequest { id, container, command, tty: false, size: None, descendants };
    let stdio = ExecStdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = {
        let mut reads = pin!(async { tokio::join!(read(out, &mut stdout), read(err, &mut stderr)) });
        let mut exec = pin!(runtime.exec(request, stdio));
        // Cancel-safe: both futures stay, and go on below.
        tokio::select! {
            ended = &mut exec => {
                // Output that comes later is not the command's own.
                timeout(DRAIN, &mut reads).await.ok();
                ended
            }
            _ = &mut reads => exec.await,
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(CommandOutput { code: ended?.code, stdout: text(stdout), stderr: text(stderr) })
}

fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// Reads a pipe to its end, and keeps the first [`MAX_OUTPUT`] bytes.
async fn read(mut from: pipe::Receiver, kept: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let left = MAX_OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..left]);
    }
}
