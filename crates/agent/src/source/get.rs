//! One GET request to a server of manifests: headers, redirects, certificates.
//!
//! It uses the probes' parts (hyper, rustls), which the agent has anyway, and not reqwest: that would bring a second
//! client with its own pool, cookies, proxies and Unicode tables, for one request every 20 s.

use std::{
    io,
    path::Path,
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
    blocking::blocking,
    clock::timeout_at,
    config::UrlSource,
    contact::{
        http::{REDIRECTS, exchange, location},
        tcp, tls, words,
    },
    limits,
    url::Url,
};

/// Time limit of a poll, redirects included (R-HTTP-1).
const TIMEOUT: Duration = Duration::from_secs(10);
/// `User-Agent` of requests without configured headers.
const AGENT: &str = concat!("stanchion/", env!("CARGO_PKG_VERSION"));

/// Answer of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// A body.
    Body {
        content: Bytes,
        /// The answer's `ETag`, if it has one.
        etag: Option<HeaderValue>,
        /// `true` if nobody on the way can have read or changed it.
        is_private: bool,
    },
    /// The body that is known already (304).
    Same,
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

    /// Asks for the body; `known` is the `ETag` of the known one. The error begins with the URL.
    pub async fn get(&mut self, known: Option<&HeaderValue>) -> Result<Page, String> {
        let deadline = crate::clock::instant() + TIMEOUT;
        let asked = match timeout_at(deadline, self.follow(known, deadline)).await {
            Ok(asked) => asked,
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        };
        asked.map_err(|error| format!("{}: {error}", self.config.url))
    }

    async fn follow(&mut self, known: Option<&HeaderValue>, deadline: Instant) -> Result<Page, String> {
        let own = self.headers().await?;
        let first = self.config.url.clone();
        let (mut url, mut is_private) = (first.clone(), first.is_https);
        for _ in 0..=REDIRECTS {
            // Other servers must not learn the configured headers.
            let mut headers = if url.is_beside(&first) { own.clone() } else { plain() };
            if let Some(known) = known {
                headers.insert(IF_NONE_MATCH, known.clone());
            }
            let answer = self.ask(&url, headers, deadline).await?;
            let Some(location) = location(&answer) else { return page(answer, is_private, known.is_some()) };
            let next = url.redirected(&location).ok_or("it redirects to an invalid URL")?;
            if url.is_https && !next.is_https {
                return Err("it redirects from https to http, which is not followed".to_owned());
            }
            is_private &= next.is_https;
            url = next;
        }
        Err(format!("stopped after {REDIRECTS} redirects"))
    }

    /// Returns the configured headers, or the default ones if there are none (R-HTTP-2).
    async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = self.config.headers.clone();
        if let Some(path) = self.config.headers_file.clone() {
            headers.extend(blocking(move || from_file(&path)).await?);
        }
        Ok(if headers.is_empty() { plain() } else { headers })
    }

    async fn ask(
        &mut self,
        url: &Url,
        mut headers: HeaderMap,
        deadline: Instant,
    ) -> Result<hyper::Response<Option<Bytes>>, String> {
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(&url.authority()).map_err(|error| error.to_string())?;
            headers.insert(HOST, host);
        }
        let stream = tcp::open(&url.host, url.port, deadline).await?;
        if !url.is_https {
            return exchange(stream, &url.target, headers, MAX_MANIFEST - 1).await;
        }
        let stream = tls::connect(self.connector().await?, stream, &url.host).await.map_err(|error| words(&error))?;
        exchange(stream, &url.target, headers, MAX_MANIFEST - 1).await
    }

    async fn connector(&mut self) -> Result<&TlsConnector, String> {
        if self.tls.is_none() {
            let roots = blocking(tls::system_roots).await;
            self.tls = Some(tls::trusting(roots).map_err(|error| error.to_string())?);
        }
        self.tls.as_ref().ok_or_else(|| "TLS cannot be set up".to_owned())
    }
}

/// Evaluates an answer (R-HTTP-3).
fn page(answer: hyper::Response<Option<Bytes>>, is_private: bool, is_known: bool) -> Result<Page, String> {
    let etag = answer.headers().get(ETAG).cloned();
    match (answer.status(), answer.into_body()) {
        (StatusCode::OK, Some(content)) => Ok(Page::Body { content, etag, is_private }),
        (StatusCode::OK, None) => {
            let mib = MAX_MANIFEST >> 20;
            Err(format!("the answer has {MAX_MANIFEST} bytes or more: manifests must be smaller than {mib} MiB"))
        }
        (StatusCode::NOT_MODIFIED, _) if is_known => Ok(Page::Same),
        (status, _) => Err(status.to_string()),
    }
}

fn plain() -> HeaderMap {
    let plain = [(USER_AGENT, AGENT), (ACCEPT, "*/*")];
    plain.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect()
}

/// Reads headers from a file that only root can read. Errors do not quote its content.
fn from_file(path: &Path) -> Result<HeaderMap, String> {
    let shown = path.display();
    let unreadable = |error: io::Error| format!("headers file {shown} cannot be read: {error}");
    let file = open(path, Links::Follow).map_err(unreadable)?;
    if let Some(found) = exposure(&file.metadata().map_err(unreadable)?) {
        return Err(format!("headers file {shown} must be root's alone, and {found}: chown root:root and chmod 0600"));
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
        let (name, value) = header.ok_or_else(|| format!("headers file {shown}: line {number} is no `Name: value`"))?;
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
