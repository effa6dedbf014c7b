//! Runs programs of the packet filter: `nft` and those of iptables.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use stanchion_untrusted::read_from;

use crate::limits::FILTER_OUTPUT;

/// Time limit of a packet filter's program. A program that waits for the lock of the kernel or of another program ends
/// by itself before.
const TIME_LIMIT: Duration = Duration::from_secs(15);

/// Runs `nft` commands, all or none.
pub(super) fn nft(batch: &str) -> io::Result<()> {
    run("nft", &["-f", "-"], batch).map(drop)
}

/// Returns the output of `nft`.
pub(super) fn nft_output(arguments: &[&str]) -> io::Result<String> {
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
    let exited = kill_later(&child)?;
    let talked = exchange(&mut child, input);
    if talked.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    // The send fails if the program was killed: only then is the receiver gone.
    if exited.send(()).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{program} did not end within {} s", TIME_LIMIT.as_secs()),
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
fn exchange(child: &mut Child, input: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // Both are read at the same time: a program that fills one waits until it is read.
        let complained = scope.spawn(|| -> io::Result<Vec<u8>> {
            let mut complained = Vec::new();
            stderr.map(|stderr| stderr.take(FILTER_OUTPUT.most).read_to_end(&mut complained)).transpose()?;
            Ok(complained)
        });
        let said = write_input(child.stdin.take(), input)
            .and_then(|()| stdout.map_or(Ok(Vec::new()), |stdout| read_from(stdout, FILTER_OUTPUT)));
        if said.is_err() {
            // Then its standard error ends too.
            child.kill()?;
        }
        let complained = complained.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((said?, complained?))
    })
}

/// Gives a program its input. The programs read all of it before they print on standard output.
fn write_input(stdin: Option<ChildStdin>, input: &str) -> io::Result<()> {
    match stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        given => given,
    }
}

/// Kills a program that does not end in time. The caller reports its end through the sender; the send fails if the
/// program was killed.
fn kill_later(child: &Child) -> io::Result<mpsc::Sender<()>> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (exited, ended) = mpsc::channel();
    thread::Builder::new().name("packet filter".to_owned()).spawn(move || {
        if ended.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            // The program may have ended just now.
            if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
                tracing::debug!(%error, "a program of the packet filter cannot be killed");
            }
        }
    })?;
    Ok(exited)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stanchion_runtime::clock;

    use super::run;

    #[test]
    fn a_program_may_complain_at_length_before_it_says_anything() {
        let begun = clock::instant();
        let script = "head -c 1000000 /dev/zero >&2; cat; echo said";
        let said = run("sh", &["-c", script], "input\n").expect("it succeeds");
        assert_eq!(said, "input\nsaid\n");
        let failed = run("sh", &["-c", "cat >/dev/null; echo why >&2; exit 1"], &"x".repeat(200_000));
        assert_eq!(failed.expect_err("it fails").to_string(), "sh: why");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
