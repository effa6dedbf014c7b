//! Pull of an image: Docker does it, and reports its progress.

use std::{collections::HashMap, time::Duration};

use bollard::{auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptions};
use futures_util::StreamExt;
use oci_spec::distribution::Reference;
use stanchion_sdk::{
    archive, blocking,
    runtime::{Error, ErrorKind, Image, Progress, PullImage, PullProgress, RegistryAuth, Result},
};

use super::parse;
use crate::{
    Docker,
    client::{failed, said},
    config::RegistryConfig,
    limits,
};

/// Delay after a registry has had too many requests: Docker does not pass on the registry's own.
const BUSY: Duration = Duration::from_secs(30);
/// Address under which credentials for Docker Hub are sent.
const HUB: &str = "https://index.docker.io/v1/";

impl Docker {
    pub(crate) async fn fetch(&self, request: PullImage, progress: Progress) -> Result<Image> {
        let PullImage { reference: name, auth } = request;
        let reference = parse(&name)?;
        let host = reference.registry();
        let auth = auth.or_else(|| self.config.registry.get(host).and_then(RegistryConfig::credentials));
        let (image, tag) = parts(&reference);
        let options = CreateImageOptions { from_image: Some(image), tag, ..CreateImageOptions::default() };
        let credentials = auth.map(|auth| credentials(host, auth));
        let root = self.ready().await?.root;
        let place = root.clone();
        // If its disk is not visible from here, Docker itself reports that it is full.
        let room = blocking(move || archive::room(&root).unwrap_or(u64::MAX)).await;
        let mut told = Box::pin(self.client.api().create_image(Some(options), None, credentials));
        let mut layers = Layers::default();
        while let Some(message) = told.next().await {
            let message = message.map_err(|error| {
                objection(&name, host, failed(format!("pulling image {name}"), &error), said(&error))
            })?;
            if layers.learn(message) {
                let now = layers.progress();
                if now.received > room {
                    // Docker itself takes a layer without end. It gives up, and frees what it has, when its client
                    // does.
                    let message = format!("pulling image {name}: no space left on device");
                    let place = place.display();
                    let why = format!("more than {room} bytes have come, which is what {place} has room for");
                    return Err(Error::new(ErrorKind::Other, message).because(why));
                }
                progress.report(now);
            }
        }
        let image = self.arrived(&name).await?;
        progress.report(layers.complete());
        Ok(image)
    }
}

/// Returns name and tag, or name with digest, in Docker's form.
fn parts(reference: &Reference) -> (String, Option<String>) {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    match reference.digest() {
        Some(digest) => (format!("{name}@{digest}"), None),
        None => (name, Some(reference.tag().unwrap_or("latest").to_owned())),
    }
}

fn credentials(host: &str, auth: RegistryAuth) -> DockerCredentials {
    let address = if host == "docker.io" { HUB } else { host };
    let credentials = DockerCredentials { serveraddress: Some(address.to_owned()), ..DockerCredentials::default() };
    match auth.identity_token.is_empty() {
        true => DockerCredentials { username: Some(auth.username), password: Some(auth.password), ..credentials },
        false => DockerCredentials { identitytoken: Some(auth.identity_token), ..credentials },
    }
}

/// Progress of an image's layers, by their short ids.
#[derive(Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Default)]
struct Layer {
    received: u64,
    total: u64,
    done: bool,
}

impl Layers {
    /// Reads a message. Returns whether it told anything about a layer.
    fn learn(&mut self, message: CreateImageInfo) -> bool {
        let (Some(id), Some(status)) = (message.id, message.status) else { return false };
        if self.0.len() >= limits::LAYERS.size() && !self.0.contains_key(&id) {
            return false;
        }
        let sizes = message.progress_detail.unwrap_or_default();
        let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        match status.as_str() {
            "Pulling fs layer" | "Waiting" | "Verifying Checksum" => drop(self.0.entry(id).or_default()),
            "Downloading" => {
                let layer = self.0.entry(id).or_default();
                (layer.received, layer.total) = (size(sizes.current), size(sizes.total));
            }
            "Download complete" => {
                let layer = self.0.entry(id).or_default();
                layer.received = layer.total;
            }
            "Pull complete" | "Already exists" => {
                let layer = self.0.entry(id).or_default();
                (layer.received, layer.done) = (layer.total, true);
            }
            _ => return false,
        }
        true
    }

    fn progress(&self) -> PullProgress {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PullProgress {
            received: self.0.values().fold(0, |sum, layer| layer.received.saturating_add(sum)),
            total: self.0.values().fold(0, |sum, layer| layer.total.saturating_add(sum)),
            layers_done: count(self.0.values().filter(|layer| layer.done).count()),
            layers: count(self.0.len()),
        }
    }

    /// Returns the progress when all is there.
    fn complete(&self) -> PullProgress {
        let progress = self.progress();
        PullProgress { received: progress.total, layers_done: progress.layers, ..progress }
    }
}

/// Converts a registry's refusal, of which Docker gives only the text. The text is compared here and nowhere else.
fn objection(name: &str, host: &str, error: Error, text: &str) -> Error {
    let any = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let wrapped = |kind: ErrorKind, message: String| Error::new(kind, message).because(limits::WORDS.cut(text.trim()));
    let failed = format!("pulling image {name}");
    match () {
        () if any(&["toomanyrequests", "Too Many Requests", "HTTP 429"]) => {
            wrapped(ErrorKind::Unavailable, format!("{failed}: registry {host} has had too many requests"))
                .retry_after(BUSY)
        }
        () if any(&["manifest unknown", "not found", "name unknown", "repository name not known", "HTTP 404"]) => {
            wrapped(ErrorKind::NotFound, format!("{failed}: it is not found in registry {host}; check name and tag"))
        }
        () if any(&[
            "unauthorized",
            "denied",
            "no basic auth credentials",
            "authentication required",
            "HTTP 401",
            "HTTP 403",
        ]) =>
        {
            wrapped(
                ErrorKind::Permission,
                format!(
                    "{failed}: registry {host} wants other credentials; set username and password, or \
                     identity_token, in [backend.docker.registry.\"{host}\"], and check the image's name"
                ),
            )
        }
        () if any(&[
            "connection refused",
            "no such host",
            "i/o timeout",
            "TLS handshake",
            "deadline exceeded",
            "Client.Timeout",
            "EOF",
            "connection reset",
            "network is unreachable",
            "no route to host",
            "server misbehaving",
            "temporary failure",
            "HTTP 5",
            "HTTP status: 5",
        ]) =>
        {
            wrapped(ErrorKind::Unavailable, format!("{failed}: registry {host} cannot be reached, or is in trouble"))
        }
        () if text.contains("no space left on device") => wrapped(
            ErrorKind::Other,
            format!("{failed}: no space left on device: make room on the disk of Docker's data directory"),
        ),
        () => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, status: &str, sizes: Option<(i64, i64)>) -> CreateImageInfo {
        let sizes = sizes
            .map(|(current, total)| bollard::models::ProgressDetail { current: Some(current), total: Some(total) });
        CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: sizes,
            ..CreateImageInfo::default()
        }
    }

    #[test]
    fn layers_add_up() {
        let mut layers = Layers::default();
        assert!(!layers.learn(message("latest", "Pulling from library/redis", None)));
        layers.learn(message("a", "Already exists", None));
        layers.learn(message("b", "Pulling fs layer", None));
        layers.learn(message("b", "Downloading", Some((3, 10))));
        let halfway = PullProgress { received: 3, total: 10, layers_done: 1, layers: 2 };
        assert_eq!(layers.progress(), halfway);
        layers.learn(message("b", "Download complete", None));
        assert_eq!(layers.progress(), PullProgress { received: 10, ..halfway });
        layers.learn(message("b", "Extracting", Some((10, 10))));
        layers.learn(message("b", "Pull complete", None));
        assert_eq!(layers.progress(), PullProgress { received: 10, layers_done: 2, ..halfway });
    }

    #[test]
    fn dockers_words_have_a_kind() {
        for (text, kind) in [
            ("manifest for 127.0.0.1:5000/a:b not found: manifest unknown: manifest unknown", ErrorKind::NotFound),
            (
                "pull access denied for a, repository does not exist or may require 'docker login'",
                ErrorKind::Permission,
            ),
            ("Head \"https://x/v2/\": unauthorized: authentication required", ErrorKind::Permission),
            ("toomanyrequests: You have reached your pull rate limit.", ErrorKind::Unavailable),
            ("dial tcp 127.0.0.1:1: connect: connection refused", ErrorKind::Unavailable),
            ("error parsing HTTP 429 response body: unexpected end of JSON input: \"\"", ErrorKind::Unavailable),
            ("received unexpected HTTP status: 503 Service Unavailable", ErrorKind::Unavailable),
            ("something new", ErrorKind::Other),
        ] {
            let error = objection("a:b", "x", Error::new(ErrorKind::Other, ""), text);
            assert_eq!(error.kind(), kind, "{text}");
            let is_busy = text.starts_with("toomany") || text.contains("429");
            assert_eq!(error.retry_delay().is_some(), is_busy, "{text}");
        }
    }

    #[test]
    fn references_are_taken_apart_as_docker_wants_them() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (name, image, tag) in [
            ("docker.io/library/redis:7", "docker.io/library/redis".to_owned(), Some("7")),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b".to_owned(), Some("c")),
            (&format!("docker.io/library/redis@{digest}"), format!("docker.io/library/redis@{digest}"), None),
        ] {
            let reference = parse(name).expect("a reference");
            assert_eq!(parts(&reference), (image, tag.map(str::to_owned)));
        }
        assert_eq!(parse("No Reference!").expect_err("none").kind(), ErrorKind::Invalid);
    }
}
