//! Client of a running agent, over its socket.

use std::{future::Future, path::PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use stanchion_board::view::{NodeView, PodView, RemovedView};
use stanchion_pod::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::net::UnixStream;

use crate::{config::Settings, run::socket_path, table::shown};

/// Client of the agent at a socket, which is given or in the configuration.
#[derive(Debug)]
pub struct Client {
    config: PathBuf,
    socket: Option<PathBuf>,
}

impl Client {
    pub fn new(config: PathBuf, socket: Option<PathBuf>) -> Self {
        Self { config, socket }
    }

    /// Runs the future to its end, with a tokio runtime of its own.
    pub fn block_on<T>(&self, talk: impl Future<Output = Result<T>>) -> Result<T> {
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
        let result = tokio.block_on(talk);
        // A read from a terminal cannot be cancelled, so do not wait for it.
        tokio.shutdown_background();
        result
    }

    /// Gets an answer as JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.send(Method::GET, path, &[]).await?;
        let body = answer.into_body().collect().await.context("reading the agent's answer")?.to_bytes();
        serde_json::from_slice(&body).context("the agent's answer cannot be read; is it of another version?")
    }

    /// Sends a request and returns the answer; a status that is not a success is an error.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Response<Incoming>> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => socket_path(&Settings::load(&self.config)?.agent),
        };
        let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => anyhow!("no permission for {}; try it with sudo", socket.display()),
            _ => anyhow!(
                "the agent does not answer at {} ({error}); start it with: stanchion run --config {}",
                socket.display(),
                self.config.display()
            ),
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("talking to the agent")?;
        #[allow(clippy::disallowed_methods, reason = "the connection of this command; it ends with the process")]
        tokio::spawn(connection.with_upgrades());
        let request = Request::builder().method(method).uri(path).header("host", "stanchion");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.body(Empty::<Bytes>::new()).context("asking the agent")?;
        let answer = sender.send_request(request).await.context("asking the agent")?;
        if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let message = message.as_ref().and_then(|body| body.get("message")?.as_str());
        bail!("{}", message.map_or_else(|| format!("the agent answers {status}"), shown))
    }

    /// Finds the pod that a user means: by name, with or without the node's name, with or without `pod/` and a
    /// namespace.
    pub async fn find(&self, name: &str, namespace: Option<&str>) -> Result<PodView> {
        let is_meant = self.meant(name, namespace).await?;
        let mut found: Vec<PodView> = self.get("/v1/pods").await?;
        found.retain(|pod| is_meant(&pod.pod.metadata));
        match found.as_slice() {
            [pod] => Ok(pod.clone()),
            [] => bail!("pod {name:?} not found; see: stanchion get pods"),
            _ => bail!("there are {} pods named {name:?}; say which with -n NAMESPACE", found.len()),
        }
    }

    /// Returns the removed pods of that name, the latest first.
    pub async fn find_removed(&self, name: &str, namespace: Option<&str>) -> Result<Vec<RemovedView>> {
        let is_meant = self.meant(name, namespace).await?;
        let mut found: Vec<RemovedView> = self.get("/v1/removed").await?;
        found.retain(|removed| is_meant(&removed.pod.metadata));
        Ok(found)
    }

    /// Returns a predicate for the metadata of the pods that a user means by this name.
    pub async fn meant<'a>(
        &self,
        name: &'a str,
        namespace: Option<&'a str>,
    ) -> Result<impl Fn(&ObjectMeta) -> bool + 'a> {
        let name = name.strip_prefix("pod/").or_else(|| name.strip_prefix("pods/")).unwrap_or(name);
        let (namespace, name) = match (name.split_once('/'), namespace) {
            (Some((own, _)), Some(given)) if own != given => {
                bail!("{name:?} is not in namespace {given:?}; leave out --namespace or {own:?}")
            }
            (Some((own, name)), _) => (Some(own), name),
            (None, given) => (given, name),
        };
        let full = format!("{name}-{}", self.get::<NodeView>("/v1/node").await?.name);
        Ok(move |metadata: &ObjectMeta| {
            let is_named = metadata.name.as_deref().is_some_and(|it| it == name || it == full);
            is_named && namespace.is_none_or(|it| metadata.namespace.as_deref() == Some(it))
        })
    }
}

/// Encodes a query value, so that any text stays one value.
pub fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Returns the API path of a pod, or of something below it.
pub fn pod_path(pod: &PodView, below: &str) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("/v1/pods/{}/{}{below}", part(&pod.pod.metadata.namespace), part(&pod.pod.metadata.name))
}
