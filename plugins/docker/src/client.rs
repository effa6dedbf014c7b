//! Client of one Docker, with a connection for every request, as in Docker's own client.

use std::{
    error::Error as StdError,
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bollard::{
    API_DEFAULT_VERSION, BollardRequest, ClientVersion, Docker, body_full,
    errors::Error as ApiError,
    models::{ContainerInspectResponse, SystemVersion},
    query_parameters::InspectContainerOptions,
};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, UPGRADE},
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use stanchion_sdk::runtime::{Error, ErrorKind, Result};
use stanchion_untrusted::{Limit, TooLarge};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};

use crate::{limits, names};

/// Longest time for Docker to begin an answer, seconds.
const PATIENCE: u64 = 120;
/// Oldest API that has all that is used here: Docker 20.10.
const OLDEST: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// Handle on Docker's API. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    api: Docker,
    wire: Wire,
    owner: Arc<str>,
}

/// Docker's socket, and the version of the API once that is agreed.
#[derive(Clone, Debug)]
struct Wire {
    socket: Arc<Path>,
    version: Arc<Mutex<Option<ClientVersion>>>,
}

/// Future in the client library's form.
type Sending = Pin<Box<dyn Future<Output = std::result::Result<Response<Incoming>, ApiError>> + Send>>;

impl Client {
    /// Makes a client that connects when it is used. `owner` marks our objects.
    pub fn new(socket: &Path, owner: &str) -> Result<Self> {
        let wire = Wire { socket: socket.into(), version: Arc::default() };
        let sender = wire.clone();
        let transport = move |request: BollardRequest| -> Sending {
            let wire = sender.clone();
            Box::pin(async move { wire.send(request).await })
        };
        let api =
            Docker::connect_with_custom_transport(transport, Some("http://docker"), PATIENCE, API_DEFAULT_VERSION);
        let api = api.map_err(|error| failed("preparing the connection to Docker", &error))?;
        Ok(Self { api, wire, owner: owner.into() })
    }

    /// Returns the API.
    pub fn api(&self) -> &Docker {
        &self.api
    }

    /// Agrees on the version of the API: the newest that both sides know.
    pub async fn negotiate(&self) -> Result<SystemVersion> {
        self.agree(None);
        let version = self.api.version().await.map_err(|error| failed("asking Docker for its version", &error))?;
        let theirs = version.api_version.as_deref().and_then(parse).unwrap_or(OLDEST);
        if theirs < OLDEST {
            let engine = version.version.as_deref().unwrap_or("unknown");
            let message = format!("Docker {engine} speaks API {theirs}; 20.10 or newer (API {OLDEST}) is needed");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let agreed = if theirs < *API_DEFAULT_VERSION { theirs } else { *API_DEFAULT_VERSION };
        self.agree(Some(agreed));
        Ok(version)
    }

    fn agree(&self, version: Option<ClientVersion>) {
        *self.wire.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }

    /// Returns whether a version of the API, or a newer one, is agreed on.
    pub fn speaks(&self, version: ClientVersion) -> bool {
        let agreed = self.wire.version.lock().unwrap_or_else(PoisonError::into_inner);
        agreed.as_ref().is_some_and(|agreed| *agreed >= version)
    }

    /// Returns the filter for the label that marks our objects.
    pub fn of_ours(&self) -> String {
        format!("{}={}", names::OWNER, self.owner)
    }

    /// Returns whether these are the labels of an object of ours.
    pub fn owns(&self, labels: Option<&std::collections::HashMap<String, String>>) -> bool {
        labels.and_then(|labels| labels.get(names::OWNER)).is_some_and(|owner| **owner == *self.owner)
    }

    /// Returns a container of ours; `None` for somebody else's.
    pub async fn find(&self, id: &str) -> Result<Option<ContainerInspectResponse>> {
        match self.api.inspect_container(id, None::<InspectContainerOptions>).await {
            Ok(found) => {
                Ok(Some(found).filter(|found| self.owns(found.config.as_ref().and_then(|it| it.labels.as_ref()))))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(failed(format!("looking up {id}"), &error)),
        }
    }

    /// Posts JSON and takes over the connection.
    pub async fn hijack(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> std::result::Result<TokioIo<Upgraded>, ApiError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(body_full(Bytes::from(body.to_string())))?;
        let response = self.wire.send(request).await?;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(TokioIo::new(hyper::upgrade::on(response).await?));
        }
        let body = http_body_util::Limited::new(response.into_body(), limits::ANSWER.size());
        let said = http_body_util::BodyExt::collect(body).await.map(|said| said.to_bytes()).unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&said).ok();
        let message = message.and_then(|said| Some(said.get("message")?.as_str()?.to_owned()));
        let message = message.unwrap_or_else(|| String::from_utf8_lossy(&said).into_owned());
        Err(ApiError::DockerResponseServerError { status_code: status.as_u16(), message })
    }
}

impl Wire {
    async fn send(&self, mut request: BollardRequest) -> std::result::Result<Response<Incoming>, ApiError> {
        let version = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = (!is_stream(request.uri().path())).then_some(limits::ANSWER);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let path = version.map_or_else(|| path.to_owned(), |version| format!("/v{version}{path}"));
        *request.uri_mut() = path.parse::<Uri>()?;
        request.headers_mut().insert(HOST, HeaderValue::from_static("docker"));
        url_safe(&mut request);
        let stream = UnixStream::connect(&*self.socket).await.map_err(|error| {
            let socket = self.socket.display();
            io::Error::new(error.kind(), format!("Docker does not answer at {socket}: {error}"))
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(Answer { from: stream, read: 0, limit })).await?;
        #[allow(clippy::disallowed_methods, reason = "ends with the connection, which ends with the answer")]
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to Docker broke off");
            }
        });
        Ok(sender.send_request(request).await?)
    }
}

/// Returns whether Docker answers this path with a stream, which is read as it comes.
fn is_stream(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    matches!(last, "events" | "logs")
        || (path.starts_with("/exec/") && last == "start")
        || path.starts_with("/images/create")
        || path.starts_with("/images/load")
}

/// Connection with one answer, of at most `limit` bytes.
struct Answer {
    from: UnixStream,
    read: u64,
    limit: Option<Limit>,
}

impl AsyncRead for Answer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.from).poll_read(cx, buf))?;
        self.read += (buf.filled().len() - before) as u64;
        Poll::Ready(self.limit.map_or(Ok(()), |limit| limit.check(self.read)).map_err(io::Error::from))
    }
}

impl AsyncWrite for Answer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.from).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.from).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.from).poll_shutdown(cx)
    }
}

/// Returns the limit that Docker's answer exceeds, if any.
pub(crate) fn too_large(error: &ApiError) -> Option<TooLarge> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| inner.downcast_ref::<TooLarge>()) {
            return Some(*found);
        }
        next = error.source();
    }
    None
}

/// Rewrites credentials in base64's alphabet for URLs: Docker ignores those that it cannot read so. The library writes
/// the other alphabet.
fn url_safe(request: &mut BollardRequest) {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth")
        && let Ok(text) = value.to_str()
        && let Ok(mut safe) = HeaderValue::from_str(&text.replace('+', "-").replace('/', "_"))
    {
        safe.set_sensitive(true);
        *value = safe;
    }
}

fn parse(version: &str) -> Option<ClientVersion> {
    let (major, minor) = version.split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

/// Converts a failed call into the contract's error; `tried` names the action and its object.
pub(crate) fn failed(tried: impl Into<String>, error: &ApiError) -> Error {
    if let Some(large) = too_large(error) {
        return Error::new(ErrorKind::Invalid, tried).because(format!("Docker's answer cannot be taken: {large}"));
    }
    let kind = match error {
        ApiError::DockerResponseServerError { status_code, .. } => match status_code {
            400 => ErrorKind::Invalid,
            401 | 403 => ErrorKind::Permission,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            501 => ErrorKind::Unsupported,
            503 => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        },
        ApiError::RequestTimeoutError => ErrorKind::Timeout,
        ApiError::IOError { .. } | ApiError::HyperResponseError { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Other,
    };
    let wrapped = Error::new(kind, tried);
    match error {
        // The message without the library's text around it.
        ApiError::DockerResponseServerError { message, .. } => wrapped.because(limits::WORDS.cut(message.trim())),
        ApiError::DockerStreamError { error } => wrapped.because(limits::WORDS.cut(error.trim())),
        other => wrapped.caused_by(other),
    }
}

/// Returns Docker's message, if there is one.
pub(crate) fn said(error: &ApiError) -> &str {
    match error {
        ApiError::DockerResponseServerError { message, .. } => message,
        ApiError::DockerStreamError { error } | ApiError::DockerContainerWaitError { error, .. } => error,
        _ => "",
    }
}

/// Returns Docker's HTTP status of a failed call; 0 if there is none.
pub(crate) fn status(error: &ApiError) -> u16 {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => *status_code,
        _ => 0,
    }
}

/// Returns whether a call failed only because its object no longer exists.
pub(crate) fn is_gone(error: &ApiError) -> bool {
    status(error) == 404
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_written_as_docker_reads_them() {
        let mut request = Request::builder().header("X-Registry-Auth", "a+b/c=").body(body_full(Bytes::new()));
        let request = request.as_mut().expect("a request");
        url_safe(request);
        let value = request.headers().get("x-registry-auth").expect("it stays");
        assert_eq!(value, "a-b_c=");
        assert!(!format!("{value:?}").contains("a-b_c"), "it is shown");
    }

    #[tokio::test]
    async fn an_answer_has_an_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
        let client = Client::new(&socket, "ours").expect("a client");
        let docker = async {
            let (mut asked, _) = listener.accept().await.expect("a connection");
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Id\": \"";
            tokio::io::AsyncWriteExt::write_all(&mut asked, head).await.expect("it reads");
            let (piece, mut sent) = (vec![b'x'; 1 << 20], 0);
            while sent < 256 && tokio::io::AsyncWriteExt::write_all(&mut asked, &piece).await.is_ok() {
                sent += 1;
            }
            sent
        };
        let (answer, sent) = tokio::join!(client.api().inspect_image("a"), docker);
        let error = answer.expect_err("it has no end");
        assert!(too_large(&error).is_some() && sent < 64, "{sent} MiB: {error}");
        let error = failed("looking up image a", &error);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.chain().contains("it is larger than 33554432 bytes (limit \"answer of Docker\")"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn streams_are_told_from_answers() {
        for stream in ["/events", "/containers/a/logs", "/exec/a/start", "/images/create", "/images/load"] {
            assert!(is_stream(stream), "{stream}");
        }
        for answer in ["/containers/json", "/images/a/json", "/containers/create", "/info", "/exec/a/json"] {
            assert!(!is_stream(answer), "{answer}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let ordered = ["1.9", "1.41", "1.100", "2.0"].map(|version| parse(version).expect("a version"));
        assert!(ordered.is_sorted_by(|one, next| one < next));
        assert!(["", "1", "1.x"].iter().all(|wrong| parse(wrong).is_none()));
    }
}
