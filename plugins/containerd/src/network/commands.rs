//! The packet filter's programs.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stanchion_untrusted::read_from;

use crate::limits::FILTER_OUTPUT;

/// How long a program of the packet filter may take. One that waits for the kernel's or another program's lock ends by itself
/// before.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `nft` commands, all or none.
pub(super) fn nft(batch: &str) -> io::Result<()> {
    run("nft", &["-f", "-"], batch).map(drop)
}

/// Returns what `nft` prints.
pub(super) fn asked_of_nft(arguments: &[&str]) -> io::Result<String> {
    run("nft", arguments, "")
}

/// Runs a program of the packet filter, and returns what it prints. `NotFound` means that it is not installed.
pub(super) fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match (error.kind(), program) {
        (io::ErrorKind::NotFound, "nft") => {
            io::Error::new(error.kind(), "the program nft is missing; install the package nftables")
        }
        _ => error,
    })?;
    let over = kill_later(&child)?;
    let talked = talk(&mut child, input);
    if talked.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    // Whether it was killed: the sender is gone only then.
    if over.send(()).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{program} did not end within {} s", PATIENCE.as_secs()),
        ));
    }
    let (said, complained) = talked?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&said).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&complained);
            Err(io::Error::other(format!("{program}: {}", said.lines().next().unwrap_or("failed without a word"))))
        }
    }
}

/// Gives a program its input, and returns what it prints and complains of.
fn talk(child: &mut Child, input: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // All of it is read before the first word is printed.
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(error);
    }
    let mut complained = Vec::new();
    let said = child.stdout.take().map(|stdout| read_from(stdout, FILTER_OUTPUT)).transpose()?.unwrap_or_default();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(FILTER_OUTPUT.most).read_to_end(&mut complained)?;
    }
    Ok((said, complained))
}

/// Kills a program that has not ended in time. Its end is told to the sender, which finds nobody if it was killed.
fn kill_later(child: &Child) -> io::Result<mpsc::Sender<()>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (over, ended) = mpsc::channel();
    thread::Builder::new().name("packet filter".to_owned()).spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // It may have ended just now.
            if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
                tracing::debug!(%error, "a program of the packet filter cannot be killed");
            }
        }
    })?;
    Ok(over)
}
