//! The agent's socket, asked directly: a pod is looked at twenty times a second.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// What is at `path`; `None` where the agent knows of nothing.
///
/// # Errors
/// When the agent does not answer.
pub fn get(socket: &Path, path: &str) -> Result<Option<Value>> {
    let failed = || format!("asking the agent for {path}");
    let mut stream = UnixStream::connect(socket).with_context(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).with_context(failed)?;
    let head = format!("GET {path} HTTP/1.0\r\nHost: stanchion\r\n\r\n");
    stream.write_all(head.as_bytes()).with_context(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(failed)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").with_context(failed)?;
    let head = String::from_utf8_lossy(&answer[..end]);
    match head.split(' ').nth(1) {
        Some("200") => serde_json::from_slice(&answer[end + 4..]).map(Some).with_context(failed),
        Some("404") => Ok(None),
        _ => bail!("{}: it answers {head:?}", failed()),
    }
}

/// The body of a page that this machine serves.
///
/// # Errors
/// When nobody answers there.
pub fn page(url: &str) -> Result<String> {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("an address")?;
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").with_context(|| format!("asking {host}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("reading {url}"))?;
    ensure!(answer.contains(" 200 "), "{url} answers {answer}");
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
