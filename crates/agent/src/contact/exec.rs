//! A command in a container.

use std::{
    io,
    os::fd::OwnedFd,
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use stanchion_runtime::{ContainerId, Error, ErrorKind, ExecId, ExecRequest, ExecStdio, Runtime};
use tokio::{io::AsyncReadExt, net::unix::pipe};

/// The most that is kept of what a command writes, bytes (R-PRB-13).
const OUTPUT: usize = 10 << 10;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// All that it wrote.
    pub fn output(&self) -> String {
        let mut output = format!("{}{}", self.stdout, self.stderr);
        let end = (0..=output.len().min(OUTPUT)).rev().find(|end| output.is_char_boundary(*end));
        output.truncate(end.unwrap_or(0));
        output
    }
}

/// Runs a command in a container. The process is killed when this is dropped before it has ended (R-PRB-35).
pub(crate) async fn run<R: Runtime>(runtime: &R, container: &ContainerId, command: &[String]) -> Result<Ran, Error> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = ExecId(format!("run-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let no_pipe = |error: io::Error| Error::new(ErrorKind::Other, "making pipes for a command").caused_by(&error);
    let (out, stdout) = outlet().map_err(no_pipe)?;
    let (err, stderr) = outlet().map_err(no_pipe)?;
    let request = ExecRequest { id, container: container.clone(), command: command.to_vec(), tty: false, size: None };
    let stdio = ExecStdio { stdin: None, stdout: Some(stdout), stderr: Some(stderr) };
    let (ended, stdout, stderr) = tokio::join!(runtime.exec(request, stdio), read(out), read(err));
    Ok(Ran { code: ended?.code, stdout, stderr })
}

fn outlet() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

/// Reads to the end and keeps the beginning.
async fn read(mut from: pipe::Receiver) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
