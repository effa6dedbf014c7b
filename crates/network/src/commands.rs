//! Programs of the packet filter: `nft` and those of iptables.

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

/// Time limit of a packet filter's program. One that waits for the lock of the kernel or another program ends by itself
/// before.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `nft` commands, all or none.
pub(super) fn nft(batch: &str) -> io::Result<()> {
    run("nft", &["-f", "-"], batch).map(drop)
}

/// Returns the output of `nft`.
pub(super) fn asked_of_nft(arguments: &[&str]) -> io::Result<String> {
    run("nft", arguments, "")
}

/// Runs a program of the packet filter, and returns its output. `NotFound` means that it is not installed.
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
    // Fails if the program was killed: only then is the receiver gone.
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

/// Gives a program its input, and returns its output and its errors.
fn talk(child: &mut Child, input: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // The programs read all input before they print anything.
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

/// Kills a program that does not end in time. The caller reports its end through the sender, which fails if it was
/// killed.
fn kill_later(child: &Child) -> io::Result<mpsc::Sender<()>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (over, ended) = mpsc::channel();
    thread::Builder::new().name("packet filter".to_owned()).spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The program may have ended just now.
            if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
                tracing::debug!(%error, "a program of the packet filter cannot be killed");
            }
        }
    })?;
    Ok(over)
}
