//! A proxy in front of the registry that misbehaves on demand.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::wait::lock;

/// Misbehaviour of the proxy.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status line and header, and an empty body.
    Refuse {
        /// e.g. `429 Too Many Requests`
        status: &'static str,
        /// e.g. `Retry-After: 7`
        header: &'static str,
    },
    /// Refuses requests without the login `user:secret`.
    Login,
    /// Refuses requests without a token; issues one for a POST with the identity token `secret`.
    Identity,
    /// Breaks the connection after that many bytes of the body.
    Cut(usize),
    /// Sends only that many bytes of the body, with a `Content-Length` that matches.
    Truncate(usize),
    /// Changes the last byte of the body.
    Falsify,
}

/// Request that has arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Time of its arrival.
    pub at: Instant,
    /// Request line and headers, one a line.
    pub head: String,
}

struct Rule {
    path: &'static str,
    times: u32,
    fault: Fault,
}

#[derive(Default)]
struct State {
    address: String,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    stopped: AtomicBool,
}

/// Proxy, which ends when it is dropped.
pub struct Proxy {
    state: Arc<State>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.state.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy that forwards everything to the address `upstream`.
    ///
    /// # Errors
    /// When it cannot listen on any port.
    pub fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let address = listener.local_addr().context("the proxy has no address")?.to_string();
        let state = Arc::new(State { address, ..State::default() });
        let (shared, upstream) = (Arc::clone(&state), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, upstream) = (Arc::clone(&shared), upstream.clone());
                // A client that disconnects early is the point of some tests.
                thread::spawn(move || serve(&shared, &upstream, client).ok());
            }
        });
        Ok(Self { state })
    }

    /// Returns its address, `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.state.address
    }

    /// Misbehaves for the next `times` requests whose path contains `path`.
    pub fn fault(&self, path: &'static str, times: u32, fault: Fault) {
        lock(&self.state.rules).push(Rule { path, times, fault });
    }

    /// Removes all faults.
    pub fn heal(&self) {
        lock(&self.state.rules).clear();
    }

    /// Returns the requests so far whose path contains `path`.
    #[must_use]
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        let has_path = |seen: &&Seen| seen.head.lines().next().is_some_and(|line| line.contains(path));
        lock(&self.state.seen).iter().filter(has_path).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener.
        TcpStream::connect(&self.state.address).ok();
    }
}

/// Answers one request and closes the connection.
fn serve(state: &State, upstream: &str, mut client: TcpStream) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    while reader.read_line(&mut head)? > 2 {}
    if head.trim().is_empty() {
        return Ok(());
    }
    lock(&state.seen).push(Seen { at: Instant::now(), head: head.clone() });
    let fault = strike(state, &head);
    match fault {
        Some(Fault::Refuse { status, header }) => {
            return write!(client, "HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        // user:secret in base64.
        Some(Fault::Login) if !head.contains("dXNlcjpzZWNyZXQ=") => {
            let challenge = "WWW-Authenticate: Basic realm=\"test\"";
            return write!(
                client,
                "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        Some(Fault::Identity) if head.starts_with("GET /token") || head.starts_with("POST /token") => {
            return client.write_all(token(&head, reader)?.as_bytes());
        }
        Some(Fault::Identity) if !head.contains("Bearer let-me-in") => {
            let realm = format!("realm=\"http://{}/token\"", state.address);
            let challenge = format!("WWW-Authenticate: Bearer {realm},service=\"tests\"");
            return write!(
                client,
                "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        _ => {}
    }
    let mut server = TcpStream::connect(upstream)?;
    let kept = head.lines().filter(|line| !line.is_empty() && !line.to_lowercase().starts_with("connection:"));
    let request = kept.map(|line| format!("{line}\r\n")).collect::<String>() + "Connection: close\r\n\r\n";
    server.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let mut body = answer.split_off(end);
    match fault {
        Some(Fault::Cut(length)) => body.truncate(length),
        Some(Fault::Truncate(length)) => {
            body.truncate(length);
            let text = String::from_utf8_lossy(&answer).into_owned();
            let lines = text.trim_end().lines().map(|line| match line.to_lowercase().starts_with("content-length:") {
                true => format!("Content-Length: {}\r\n", body.len()),
                false => format!("{line}\r\n"),
            });
            answer = (lines.collect::<String>() + "\r\n").into_bytes();
        }
        Some(Fault::Falsify) => {
            if let Some(last) = body.last_mut() {
                *last = !*last;
            }
        }
        _ => {}
    }
    client.write_all(&answer)?;
    client.write_all(&body)?;
    client.shutdown(Shutdown::Both)
}

/// Returns the answer of a token server that takes an identity token, by POST, and nothing else.
fn token(head: &str, mut rest: impl Read) -> std::io::Result<String> {
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    let mut form = vec![0; length.unwrap_or(0)];
    rest.read_exact(&mut form)?;
    let form = String::from_utf8_lossy(&form).into_owned();
    let has = |pair: &str| form.split('&').any(|it| it == pair);
    let asks = has("grant_type=refresh_token") && has("service=tests") && form.contains("scope=repository%3A");
    let (status, body) = match head.starts_with("POST") && asks && has("refresh_token=secret") {
        true => ("200 OK", r#"{"access_token": "let-me-in", "expires_in": 60}"#),
        false => ("401 Unauthorized", r#"{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}"#),
    };
    let length = body.len();
    Ok(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"))
}

/// Returns the fault for a request, and counts it as used.
fn strike(state: &State, head: &str) -> Option<Fault> {
    let line = head.lines().next().unwrap_or_default();
    let mut rules = lock(&state.rules);
    let rule = rules.iter_mut().find(|rule| rule.times > 0 && line.contains(rule.path))?;
    rule.times -= 1;
    Some(rule.fault.clone())
}
