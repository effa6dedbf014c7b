//! One GET request to a server of manifests: headers, redirects, certificates.
//!
//! It uses the probes' parts (hyper, rustls), which the agent has anyway, and not reqwest, which would add a second
//! client with its own pool, cookies, proxies and Unicode tables, for one request every 20 s.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hyper::{
    HeaderMap, StatusCode,
    body::Bytes,
    header::{ACCEPT, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, USER_AGENT},
};
use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::{Links, open, read_from};
use tokio_rustls::TlsConnector;

use super::exposure::exposure;
use crate::{
    blocking,
    clock::timeout_at,
    config::UrlSource,
    contact::{
        error::ContactError,
        http::{MAX_REDIRECTS, exchange, location},
        tcp, tls,
    },
    limits,
    url::Url,
};

/// Time limit of a poll, redirects included (R-HTTP-1).
const TIMEOUT: Duration = Duration::from_secs(10);
/// `User-Agent` of requests without configured headers.
const AGENT: &str = concat!("stanchion/", env!("CARGO_PKG_VERSION"));

/// Result of a request to a server of manifests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// A body.
    Body {
        content: Bytes,
        /// The answer's `ETag`, if it has one.
        etag: Option<HeaderValue>,
        /// `true` if nobody between server and agent can have read or changed it.
        is_private: bool,
    },
    /// The server still has the known body (304).
    Same,
}

/// Failure to get the body. The texts quote neither headers nor content.
#[derive(Debug, thiserror::Error)]
pub(super) enum GetError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
    #[error(transparent)]
    Contact(#[from] ContactError),
    #[error("it redirects to an invalid URL")]
    InvalidRedirect,
    #[error("it redirects from https to http, which is not followed")]
    Downgrade,
    /// The server answered with this status.
    #[error("{0}")]
    Status(StatusCode),
    #[error("the answer has {MAX_MANIFEST} bytes or more: manifests must be smaller than {} MiB", MAX_MANIFEST >> 20)]
    TooLarge,
    #[error("{0}")]
    Tls(String),
    #[error("headers file {} cannot be read: {error}", path.display())]
    Headers { path: PathBuf, error: io::Error },
    /// Other users than root can read the file or change it, as the text says.
    #[error("headers file {} must be root's alone, and {found}: chown root:root and chmod 0600", path.display())]
    Exposed { path: PathBuf, found: String },
    #[error("headers file {}: line {line} is no `Name: value`", path.display())]
    NoHeader { path: PathBuf, line: usize },
}

/// Client of one server.
pub(super) struct Client {
    config: UrlSource,
    /// TLS settings, made when they are first needed.
    tls: Option<TlsConnector>,
}

impl Client {
    pub fn new(config: UrlSource) -> Self {
        Self { config, tls: None }
    }

    /// Requests the body; `known` is the `ETag` of the known one.
    pub async fn get(&mut self, known: Option<&HeaderValue>) -> Result<Fetched, GetError> {
        let deadline = crate::clock::instant() + TIMEOUT;
        timeout_at(deadline, self.follow(known, deadline)).await.unwrap_or(Err(GetError::Late))
    }

    async fn follow(&mut self, known: Option<&HeaderValue>, deadline: Instant) -> Result<Fetched, GetError> {
        let own = self.headers().await?;
        let first = self.config.url.clone();
        let (mut url, mut is_private) = (first.clone(), first.is_https);
        for _ in 0..=MAX_REDIRECTS {
            // Other servers must not learn the configured headers.
            let mut headers = if url.is_beside(&first) { own.clone() } else { plain() };
            if let Some(known) = known {
                headers.insert(IF_NONE_MATCH, known.clone());
            }
            let answer = self.send(&url, headers, deadline).await?;
            let Some(location) = location(&answer) else { return page(answer, is_private, known.is_some()) };
            let next = url.redirected(&location).ok_or(GetError::InvalidRedirect)?;
            if url.is_https && !next.is_https {
                return Err(GetError::Downgrade);
            }
            is_private &= next.is_https;
            url = next;
        }
        Err(ContactError::Redirects.into())
    }

    /// Returns the configured headers, or the default ones if there are none (R-HTTP-2).
    async fn headers(&self) -> Result<HeaderMap, GetError> {
        let mut headers = self.config.headers.clone();
        if let Some(path) = self.config.headers_file.clone() {
            headers.extend(blocking(move || from_file(&path)).await?);
        }
        Ok(if headers.is_empty() { plain() } else { headers })
    }

    async fn send(
        &mut self,
        url: &Url,
        mut headers: HeaderMap,
        deadline: Instant,
    ) -> Result<hyper::Response<Option<Bytes>>, GetError> {
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(&url.authority());
            let host = host.map_err(|error| ContactError::Request(error.into()))?;
            headers.insert(HOST, host);
        }
        let stream = tcp::open(&url.host, url.port, deadline).await?;
        if !url.is_https {
            return Ok(exchange(stream, &url.target, headers, MAX_MANIFEST - 1).await?);
        }
        let stream = tls::connect(self.connector().await?, stream, &url.host).await?;
        Ok(exchange(stream, &url.target, headers, MAX_MANIFEST - 1).await?)
    }

    async fn connector(&mut self) -> Result<&TlsConnector, GetError> {
        if self.tls.is_none() {
            let roots = blocking(tls::system_roots).await;
            self.tls = Some(tls::trusting(roots).map_err(|error| GetError::Tls(error.to_string()))?);
        }
        self.tls.as_ref().ok_or_else(|| GetError::Tls("TLS cannot be set up".to_owned()))
    }
}

/// Evaluates an answer (R-HTTP-3).
fn page(answer: hyper::Response<Option<Bytes>>, is_private: bool, is_known: bool) -> Result<Fetched, GetError> {
    let etag = answer.headers().get(ETAG).cloned();
    match (answer.status(), answer.into_body()) {
        (StatusCode::OK, Some(content)) => Ok(Fetched::Body { content, etag, is_private }),
        (StatusCode::OK, None) => Err(GetError::TooLarge),
        (StatusCode::NOT_MODIFIED, _) if is_known => Ok(Fetched::Same),
        (status, _) => Err(GetError::Status(status)),
    }
}

fn plain() -> HeaderMap {
    let plain = [(USER_AGENT, AGENT), (ACCEPT, "*/*")];
    plain.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// Reads headers from a file that only root can read. Errors do not quote its content.
fn from_file(path: &Path) -> Result<HeaderMap, GetError> {
    let unreadable = |error| GetError::Headers { path: path.to_owned(), error };
    let file = open(path, Links::Follow).map_err(unreadable)?;
    if let Some(found) = exposure(&file.metadata().map_err(unreadable)?) {
        return Err(GetError::Exposed { path: path.to_owned(), found });
    }
    let content = read_from(file, limits::SETTINGS_FILE).map_err(unreadable)?;
    let mut headers = HeaderMap::new();
    let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    for (number, line) in (1..).zip(lines).filter(|(_, line)| !line.is_empty()) {
        // A header's value is bytes (RFC 9110, section 5.5).
        let header = line.iter().position(|byte| *byte == b':').and_then(|colon| {
            let mut value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(line[..colon].trim_ascii()).ok()?, value))
        });
        let (name, value) = header.ok_or_else(|| GetError::NoHeader { path: path.to_owned(), line: number })?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
impl Client {
    /// Returns the client with these roots instead of the system's.
    pub fn trusting(mut self, roots: tokio_rustls::rustls::RootCertStore) -> Self {
        self.tls = tls::trusting(roots).ok();
        self
    }
}
