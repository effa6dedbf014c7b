//! The packet filter's rules, through `nft`. It runs once for the bridge, and for pods that publish ports.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

/// Runs `nft` commands, all or none.
pub(super) fn nft(batch: &str) -> io::Result<()> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("the program nft is missing; install the package nftables"),
        _ => error,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("nft: {}", said.lines().next().unwrap_or("failed without a word"))))
        }
    }
}
