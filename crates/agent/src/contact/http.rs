//! GET requests: those of probes to containers (R-PRB-20 to R-PRB-25), and the parts that all other GET requests share.

use std::{
    future::pending,
    net::IpAddr,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use stanchion_pod::HttpGet;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{error::ContactError, host_and_port, tcp, tls};
use crate::{
    clock::timeout_at,
    limits::{ANSWER_HEAD, ANSWER_HEADERS},
    url::{Url, join},
};

/// Maximum length of a body that is read, bytes (R-PRB-24).
const MAX_BODY: usize = 10 << 10;
/// Maximum number of redirects that are followed (R-PRB-23, R-HTTP-9).
pub(crate) const MAX_REDIRECTS: usize = 10;

/// Answer to a probe or hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpAnswer {
    pub status: StatusCode,
    pub body: String,
}

/// Sends a GET request as a probe does, and follows redirects on the same host. `timeout` bounds all of it.
pub(crate) async fn get(
    get: &HttpGet,
    pod: IpAddr,
    agent: &str,
    timeout: Duration,
) -> Result<HttpAnswer, ContactError> {
    let (host, port) = host_and_port(&get.to, pod)?;
    let scheme = if get.is_https { "https" } else { "http" };
    let deadline = crate::clock::instant() + timeout;
    let headers = headers(get, agent);
    let mut url = Url { is_https: get.is_https, host, port, target: get.path.clone() };
    let first = format!("{scheme}://{}{}", join(&url.host, url.port), get.path);
    for _ in 0..=MAX_REDIRECTS {
        let asked = timeout_at(deadline, send(&url, &headers, deadline)).await;
        let (answer, location) = match asked {
            Ok(asked) => asked.map_err(|error| error.of(&first))?,
            Err(_) => return Err(ContactError::Deadline.of(&first)),
        };
        match location.and_then(|location| url.redirected(&location)) {
            // A redirect to another host is not followed: it counts as the answer.
            Some(next) if next.host == url.host => url = next,
            _ => return Ok(answer),
        }
    }
    Err(ContactError::Redirects.of(&url.target))
}

/// Returns the headers of the request. It leaves out `User-Agent` and `Accept` if `get` sets them to an empty text.
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
    headers
}

/// Returns the answer to a probe, and the `Location` if it is a redirect.
async fn send(url: &Url, headers: &HeaderMap, deadline: Instant) -> Result<(HttpAnswer, Option<String>), ContactError> {
    let stream = tcp::open(&url.host, url.port, deadline).await?;
    let mut headers = headers.clone();
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(&join(&url.host, url.port));
        let host = host.map_err(|error| ContactError::Request(error.into()))?;
        headers.insert(HOST, host);
    }
    let response = match url.is_https {
        false => exchange(stream, &url.target, headers, MAX_BODY).await?,
        true => {
            let stream = tls::wrap(stream, &url.host).await?;
            exchange(stream, &url.target, headers, MAX_BODY).await?
        }
    };
    let location = location(&response);
    let (head, body) = response.into_parts();
    // A body beyond the limit is left out: the status is enough.
    let body = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
    Ok((HttpAnswer { status: head.status, body }, location))
}

/// Sends one GET request, with these headers and `Connection: close` only. The body of the answer is `None` if it has
/// more than `limit` bytes.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &str,
    headers: HeaderMap,
    limit: usize,
) -> Result<Response<Option<Bytes>>, ContactError> {
    let mut request = Request::get(target).body(Empty::<Bytes>::new()).map_err(ContactError::Request)?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let mut connections = http1::Builder::new();
    // Takes the same answers as Go's client: long heads, many headers, and headers over several lines.
    let connected = connections
        .max_buf_size(ANSWER_HEAD.size())
        .max_headers(ANSWER_HEADERS.size())
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut send, connection) = connected.map_err(ContactError::Http)?;
    let exchange = async {
        let response = send.send_request(request).await.map_err(ContactError::Http)?;
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, limit).collect().await {
            Ok(body) => Some(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => None,
            Err(error) => return Err(ContactError::Body(error)),
        };
        Ok(Response::from_parts(head, body))
    };
    let connection = async {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection broke off");
        }
        pending::<()>().await;
    };
    // *Cancel-safe:* the connection is of no use once there is an answer.
    tokio::select! {
        answer = exchange => answer,
        () = connection => Err(ContactError::Ended),
    }
}

/// Returns the `Location` of a redirect; `None` for any other answer.
pub(crate) fn location<B>(response: &Response<B>) -> Option<String> {
    let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(LOCATION).filter(|_| is_redirect);
    location.and_then(|location| location.to_str().ok()).map(str::to_owned)
}
