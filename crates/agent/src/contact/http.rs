//! A GET request to a container (R-PRB-20 to R-PRB-25).

use std::{future::pending, net::IpAddr, time::Duration};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use stanchion_pod::HttpGet;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{join, place, tcp, tls, words};

/// The most of a body that is read, bytes (R-PRB-24).
const BODY: usize = 10 << 10;
/// The most redirects that are followed (R-PRB-23).
const REDIRECTS: usize = 10;
/// The most that is kept of what has come and was not read yet; hyper wants at least 8 KiB.
const BUFFER: usize = 16 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: String,
}

/// Asks as a probe does: redirects on the same host are followed. The whole of it may take `timeout`.
pub(crate) async fn get(get: &HttpGet, pod: IpAddr, agent: &str, timeout: Duration) -> Result<Answer, String> {
    let (host, port) = place(&get.to, pod)?;
    let scheme = if get.is_https { "https" } else { "http" };
    let deadline = Instant::now() + timeout;
    let headers = headers(get, agent);
    let mut url = Url { is_https: get.is_https, host, port, path: get.path.clone() };
    let first = format!("{scheme}://{}{}", join(&url.host, url.port), get.path);
    for _ in 0..=REDIRECTS {
        let asked = timeout_at(deadline, url.ask(&headers, deadline)).await;
        let (answer, location) = match asked {
            Ok(asked) => asked.map_err(|error| format!("Get \"{first}\": {error}"))?,
            Err(_) => {
                let message = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                return Err(format!("Get \"{first}\": {message}"));
            }
        };
        match location.and_then(|location| url.redirected(&location)) {
            // The host is another: the answer counts as it is.
            Some(next) if next.host == url.host => url = next,
            _ => return Ok(answer),
        }
    }
    Err(format!("Get \"{}\": stopped after {REDIRECTS} redirects", url.path))
}

/// What is sent with the request. A header that is given empty is left out.
fn headers(get: &HttpGet, agent: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &get.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    for (name, value) in [(USER_AGENT, agent), (ACCEPT, "*/*")] {
        match headers.get(&name) {
            Some(given) if given.is_empty() => drop(headers.remove(&name)),
            Some(_) => {}
            None => drop(HeaderValue::from_str(value).map(|value| headers.insert(name, value))),
        }
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers
}

struct Url {
    is_https: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// The answer, and where it leads.
    async fn ask(&self, headers: &HeaderMap, deadline: Instant) -> Result<(Answer, Option<String>), String> {
        let stream = tcp::open(&self.host, self.port, deadline).await?;
        if !self.is_https {
            return self.exchange(stream, headers).await;
        }
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let name = named.map_or(&*self.host, |named| named.rsplit_once(':').map_or(named, |(host, _)| host));
        let stream = tls::wrap(stream, name).await.map_err(|error| words(&error))?;
        self.exchange(stream, headers).await
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        headers: &HeaderMap,
    ) -> Result<(Answer, Option<String>), String> {
        let mut request = Request::get(&self.path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers.clone();
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(&join(&self.host, self.port)).map_err(|error| error.to_string())?;
            request.headers_mut().insert(HOST, host);
        }
        let mut connections = http1::Builder::new();
        let connected = connections.max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
        let (mut send, connection) = connected.map_err(|error| chain(&error))?;
        let exchange = async {
            let response = send.send_request(request).await.map_err(|error| chain(&error))?;
            let status = response.status();
            let location = response.headers().get(LOCATION).filter(|_| is_redirect(status));
            let location = location.and_then(|location| location.to_str().ok()).map(str::to_owned);
            let body = match Limited::new(response.into_body(), BODY).collect().await {
                Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
                // That much is known well enough.
                Err(error) if error.is::<LengthLimitError>() => String::new(),
                Err(error) => return Err(error.to_string()),
            };
            Ok((Answer { status, body }, location))
        };
        let connection = async {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection of a probe broke off");
            }
            pending::<()>().await;
        };
        // *Cancel-safe:* the connection is of no use once there is an answer.
        tokio::select! {
            answer = exchange => answer,
            () = connection => Err("the connection ended".to_owned()),
        }
    }

    /// Where a `Location` leads from here; `None` if it cannot be read.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let Some(host) = uri.host() else {
            return Some(Self { is_https: self.is_https, host: self.host.clone(), port: self.port, path });
        };
        let is_https = uri.scheme_str().map_or(self.is_https, |scheme| scheme == "https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        Some(Self { is_https, host: host.trim_matches(['[', ']']).to_owned(), port, path })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
