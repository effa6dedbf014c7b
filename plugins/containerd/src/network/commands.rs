//! `ip` and `nft`, fed with batches.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

/// Runs `ip` commands, one a line, in the calling thread's network namespace.
pub(super) fn ip(batch: &str) -> io::Result<()> {
    run(Command::new("ip").args(["-batch", "-"]), batch, "iproute2")
}

/// Runs `nft` commands, all or none.
pub(super) fn nft(batch: &str) -> io::Result<()> {
    run(Command::new("nft").args(["-f", "-"]), batch, "nftables")
}

fn run(command: &mut Command, input: &str, package: &str) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other(format!("the program {program} is missing; install the package {package}"))
        }
        _ => error,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("{program}: {}", said.lines().next().unwrap_or("failed without a word"))))
        }
    }
}
