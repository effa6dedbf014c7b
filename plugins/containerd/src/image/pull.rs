//! Pulling an image from its registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::{
    Client as Registry, Reference, RegistryOperation, client::BlobResponse, errors::OciDistributionError,
    manifest::OciDescriptor, secrets::RegistryAuth,
};
use oci_spec::image::ImageConfiguration;
use stanchion_sdk::runtime::{
    Error, ErrorKind, Image, ImageDigest, Progress, PullImage, PullProgress, RegistryAuth as Credentials, Result,
};

use super::{
    Images, RegistryConfig,
    manifest::{self, Blob, Document, Manifest},
    reference,
    registry::{Endpoint, endpoints},
    retry,
    store::{self, Store},
};

/// Layers fetched at the same time.
const PARALLEL: usize = 3;
/// Tries for one blob; each goes on where the last one broke off.
const TRIES: u32 = 5;
const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

pub(super) async fn pull(images: &Images, request: PullImage, progress: Progress) -> Result<Image> {
    let name = request.reference.clone();
    let reference = reference::parse(&name)?;
    let host = reference.registry().to_owned();
    let mut failures = Vec::new();
    for endpoint in endpoints(&host, &images.registries) {
        // Credentials go to the host that they are for, and not to its mirrors.
        let auth = match images.registries.get(&endpoint.host).and_then(RegistryConfig::credentials) {
            _ if endpoint.host == host && request.auth.is_some() => request.auth.clone(),
            configured => configured,
        };
        let pull = Pull::new(images, &endpoint, &reference, auth, &progress);
        match pull.run(&name).await {
            Ok(image) => return Ok(image),
            // A mirror that lacks it or is away is no reason not to ask the next.
            Err(error) => failures.push((endpoint.host.clone(), retry::after(error, &endpoint, &reference).await)),
        }
    }
    Err(together(&name, failures))
}

/// The failures of all places that an image was asked of. The one that says most decides what happens next: an answer
/// rather than none, and the image's own registry rather than its mirrors.
fn together(name: &str, mut failures: Vec<(String, Error)>) -> Error {
    let says = |(_, error): &(String, Error)| match error.kind() {
        ErrorKind::Unavailable if error.retry_delay().is_none() => 0,
        ErrorKind::NotFound | ErrorKind::Unavailable => 1,
        _ => 2,
    };
    let most = failures.iter().enumerate().max_by_key(|(_, failure)| says(failure)).map(|(index, _)| index);
    let Some((host, error)) = most.map(|index| failures.remove(index)) else {
        return Error::new(ErrorKind::Other, format!("no place to pull image {name} from"));
    };
    let error = error.context(format!("pulling image {name} from {host}"));
    failures.into_iter().fold(error, |error, (host, other)| error.because(format!("and {host}: {}", other.chain())))
}

struct Pull<'a> {
    images: &'a Images,
    registry: Registry,
    reference: Reference,
    auth: RegistryAuth,
    progress: &'a Progress,
}

impl<'a> Pull<'a> {
    fn new(
        images: &'a Images,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<Credentials>,
        progress: &'a Progress,
    ) -> Self {
        let (registry, auth) = images.clients.of(endpoint, auth);
        let repository = endpoint.repository(reference.repository());
        let there = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Reference::with_digest(endpoint.host.clone(), repository, digest.to_owned()),
            (None, tag) => Reference::with_tag(endpoint.host.clone(), repository, tag.unwrap_or("latest").to_owned()),
        };
        Self { images, registry, reference: there, auth, progress }
    }

    async fn run(&self, name: &str) -> Result<Image> {
        let signed_in = self.registry.auth(&self.reference, &self.auth, RegistryOperation::Pull).await;
        signed_in.map_err(|error| self.objection(error))?;
        let (manifest, bytes, digest) = self.manifest(&self.reference).await?;
        let size = manifest.layers.iter().map(|layer| layer.size).sum();
        let layers = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
        let image = Image { reference: name.to_owned(), digest: ImageDigest(digest), size };
        if !self.is_here(&image).await? {
            self.complete(&image, &manifest, bytes).await?;
        }
        self.progress.report(PullProgress { received: size, total: size, layers_done: layers, layers });
        Ok(image)
    }

    /// Whether the name stands for this very image already, ready to run.
    async fn is_here(&self, image: &Image) -> Result<bool> {
        let target = self.images.store().target(&image.reference).await?;
        let same = target.is_some_and(|target| target.digest == image.digest.0);
        // Something of it may be gone: then it is fetched again.
        Ok(same && self.images.resolve(&image.reference).await.is_ok())
    }

    /// Has what is missing of it, unpacks it, and names it.
    async fn complete(&self, image: &Image, manifest: &Manifest, bytes: Vec<u8>) -> Result<()> {
        let store = self.images.store().leased().await?;
        match self.named(&store, image, manifest, bytes.clone()).await {
            // What was here before the lease was taken by a garbage collection meanwhile: now it is fetched.
            Err(error) if error.kind() == ErrorKind::NotFound => self.named(&store, image, manifest, bytes).await,
            done => done,
        }?;
        self.images.forget_resolved();
        Ok(())
    }

    /// Has it unpacked, and under its name.
    async fn named(&self, store: &Store, image: &Image, manifest: &Manifest, bytes: Vec<u8>) -> Result<()> {
        let chain_id = self.unpacked(store, manifest).await?;
        finish(store, &image.reference, manifest, bytes, &image.digest.0, &chain_id).await
    }

    /// Has all blobs and unpacks them.
    async fn unpacked(&self, store: &Store, manifest: &Manifest) -> Result<String> {
        self.blobs(store, manifest).await?;
        let config = store.read(&manifest.config.digest).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the image's configuration cannot be read").caused_by(&error)
        })?;
        store.unpack(&manifest.layers, config.rootfs().diff_ids()).await
    }

    /// The manifest for this node, as it was written, with its digest.
    async fn manifest(&self, reference: &Reference) -> Result<(Manifest, Vec<u8>, String)> {
        let mut reference = reference.clone();
        for _ in 0..2 {
            let (bytes, digest) = self
                .registry
                .pull_manifest_raw(&reference, &self.auth, &ACCEPTED)
                .await
                .map_err(|error| self.objection(error))?;
            let bytes = bytes.to_vec();
            let found = store::digest(&bytes);
            if digest.starts_with("sha256:") && digest != found {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("the manifest is {found}, but the registry says {digest}"),
                ));
            }
            match manifest::parse(&bytes)? {
                Document::Manifest(manifest) => return Ok((*manifest, bytes, found)),
                Document::Index(index) => {
                    let digest = manifest::for_this_node(&index)?.digest.clone();
                    let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
                    reference = Reference::with_digest(host, repository, digest);
                }
            }
        }
        Err(Error::new(ErrorKind::Invalid, "an image index names another index"))
    }

    /// Has the configuration and all layers, several at once.
    async fn blobs(&self, store: &Store, manifest: &Manifest) -> Result<()> {
        let mut seen = HashSet::new();
        let blobs: Vec<Blob> = manifest
            .layers
            .iter()
            .chain([&manifest.config])
            .filter(|blob| seen.insert(blob.digest.clone()))
            .cloned()
            .collect();
        let total = blobs.iter().map(|blob| blob.size).sum();
        let layers = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
        let received = Arc::new(AtomicU64::new(0));
        let report = |received: u64| {
            self.progress.report(PullProgress { received, total, layers_done: 0, layers });
        };
        report(0);
        let fetches = stream::iter(blobs).map(|blob: Blob| {
            let received = Arc::clone(&received);
            async move {
                self.blob(store, &blob, &received).await?;
                report(received.load(Ordering::Relaxed));
                Ok(())
            }
        });
        fetches.buffer_unordered(PARALLEL).try_collect::<()>().await
    }

    async fn blob(&self, store: &Store, blob: &Blob, received: &Arc<AtomicU64>) -> Result<()> {
        if store.has(&blob.digest).await? {
            received.fetch_add(blob.size, Ordering::Relaxed);
            return Ok(());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.fetch(store, blob, received).await {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && error.retry_delay().is_none() && tries < TRIES =>
                {
                    tracing::debug!(
                        blob = blob.digest,
                        tries,
                        error = error.chain(),
                        "going on with a broken transfer"
                    );
                    tokio::time::sleep(Duration::from_millis(200) * 2_u32.pow(tries)).await;
                }
                done => return done,
            }
        }
    }

    /// Fetches a blob from where the last try broke off.
    async fn fetch(&self, store: &Store, blob: &Blob, received: &Arc<AtomicU64>) -> Result<()> {
        let there = OciDescriptor {
            digest: blob.digest.clone(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            media_type: blob.media_type.clone(),
            ..OciDescriptor::default()
        };
        let offset = store.written(&blob.digest).await;
        let (offset, parts) = match offset {
            0 => (0, self.registry.pull_blob_stream(&self.reference, &there).await),
            from => match self.registry.pull_blob_stream_partial(&self.reference, &there, from, None).await {
                Ok(BlobResponse::Partial(parts)) => (from, Ok(parts)),
                // The registry cannot go on in the middle: what is there is written over.
                Ok(BlobResponse::Full(parts)) => (0, Ok(parts)),
                Err(error) => (from, Err(error)),
            },
        };
        let parts = parts.map_err(|error| self.objection(error))?;
        received.fetch_add(offset, Ordering::Relaxed);
        let counted = Arc::clone(received);
        let parts = parts.inspect_ok(move |part| {
            counted.fetch_add(part.len() as u64, Ordering::Relaxed);
        });
        store.write(blob, HashMap::new(), offset, parts).await
    }

    /// A registry's refusal in our words. No credentials are in it.
    fn objection(&self, error: OciDistributionError) -> Error {
        let host = self.reference.registry();
        match error {
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                let hint = format!(
                    "registry {host} wants other credentials (401); set username and password in \
                     [backend.containerd.registry.\"{host}\"], and check the image's name"
                );
                Error::new(ErrorKind::Permission, hint)
            }
            OciDistributionError::ImageManifestNotFoundError(_) => not_found(&self.reference),
            OciDistributionError::ServerError { code, message, .. } => by_status(code, &message, &self.reference),
            OciDistributionError::RegistryError { envelope, .. } => {
                let text = envelope.to_string();
                match text.to_uppercase() {
                    text if text.contains("UNKNOWN") => not_found(&self.reference),
                    text if text.contains("DENIED") => by_status(403, &text, &self.reference),
                    text if text.contains("TOOMANYREQUESTS") => by_status(429, &text, &self.reference),
                    _ => Error::new(ErrorKind::Other, format!("registry {host} refuses")).because(text),
                }
            }
            OciDistributionError::RequestError(error) => match error.status() {
                Some(status) => by_status(status.as_u16(), "", &self.reference),
                None => {
                    Error::new(ErrorKind::Unavailable, format!("registry {host} cannot be reached")).caused_by(&error)
                }
            },
            other => Error::new(ErrorKind::Other, format!("registry {host}")).caused_by(&other),
        }
    }
}

fn not_found(reference: &Reference) -> Error {
    let (host, repository) = (reference.registry(), reference.repository());
    let version = reference.digest().or(reference.tag()).unwrap_or("latest");
    let message =
        format!("image {repository} with {version} is not found in registry {host} (404); check name and tag");
    Error::new(ErrorKind::NotFound, message)
}

fn by_status(code: u16, text: &str, reference: &Reference) -> Error {
    let host = reference.registry();
    match code {
        401 | 403 => {
            Error::new(ErrorKind::Permission, format!("registry {host} refuses ({code}); check the credentials"))
        }
        404 => not_found(reference),
        429 => Error::new(ErrorKind::Unavailable, format!("registry {host} has had too many requests (429)"))
            .retry_after(retry::UNSAID),
        500.. => Error::new(ErrorKind::Unavailable, format!("registry {host} is in trouble ({code})")).because(text),
        _ => Error::new(ErrorKind::Other, format!("registry {host} answers {code}")).because(text),
    }
}

/// Writes down what keeps the image, and names it.
pub(super) async fn finish(
    store: &Store,
    name: &str,
    manifest: &Manifest,
    bytes: Vec<u8>,
    digest: &str,
    chain_id: &str,
) -> Result<()> {
    let media_type = match manifest.media_type.as_str() {
        "" => ACCEPTED[0],
        media_type => media_type,
    };
    let size = bytes.len() as u64;
    let blob = Blob { media_type: media_type.to_owned(), digest: digest.to_owned(), size, platform: None };
    let parts = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest.as_str());
    store.write_all(&blob, store::content_labels(parts), bytes).await?;
    store.label(&manifest.config.digest, store.snapshot_label(chain_id)).await?;
    store.name(name, store::descriptor(media_type, digest, size)).await
}
