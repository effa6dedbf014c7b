//! The packet filter's programs.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

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
    // All of it is read before the first word is printed.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{program}: {}", said.lines().next().unwrap_or("failed without a word"))))
        }
    }
}
