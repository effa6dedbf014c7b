//! A minimal redis client.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

/// Sends one inline command and returns the first line of the answer, e.g. `+PONG`.
///
/// # Errors
/// When redis does not answer within two seconds.
pub fn ask(address: SocketAddr, command: &str) -> Result<String> {
    let patience = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("cannot connect to redis at {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(format!("{command}\r\n").as_bytes()).with_context(|| format!("cannot ask redis at {address}"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while !answer.contains(&b'\n') {
        let count = stream.read(&mut buffer).with_context(|| format!("redis at {address} does not answer"))?;
        ensure!(count > 0, "redis at {address} closed the connection");
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}
