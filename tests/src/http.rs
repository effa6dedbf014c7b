//! A minimal HTTP client: one request per connection. With HTTP 1.0, the answer is not chunked and ends with the
//! connection.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

const PATIENCE: Duration = Duration::from_secs(60);

/// Status and body of an answer.
pub type Answer = (u16, Vec<u8>);

/// Sends a request to a Unix socket; `body` is JSON, or empty.
///
/// # Errors
/// When the request cannot be sent, or the answer is malformed.
pub fn request(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let failed = || format!("{method} {path} at {}", socket.display());
    let stream = UnixStream::connect(socket).with_context(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(failed)?;
    exchange(stream, "localhost", method, path, body).with_context(failed)
}

/// Returns the body of a page of a server on this machine.
///
/// # Errors
/// When the server does not answer, or not with status 200.
pub fn page(url: &str) -> Result<String> {
    let (status, body) = get(url)?;
    ensure!(status == 200, "{url}: status {status}: {body}");
    Ok(body)
}

/// Returns status and text of the answer of a server on this machine.
///
/// # Errors
/// When the server does not answer, or not with UTF-8 text.
pub fn get(url: &str) -> Result<(u16, String)> {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("an address")?;
    let stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(|| format!("asking {host}"))?;
    let (status, body) = exchange(stream, host, "GET", &format!("/{path}"), b"").with_context(|| url.to_owned())?;
    let body = String::from_utf8(body).with_context(|| format!("{url} is no text"))?;
    Ok((status, body))
}

fn exchange(mut stream: impl Read + Write, host: &str, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).context("sending")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("reading the answer")?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").context("the answer has no head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("it answers {head:?}"))?, answer.split_off(end + 4)))
}
