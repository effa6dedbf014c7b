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
use oci_spec::{distribution::Reference, image::ImageConfiguration};
use stanchion_sdk::runtime::{
    Error, ErrorKind, Image, ImageDigest, Progress, PullImage, PullProgress, RegistryAuth, Result,
};

use super::{
    Images, RegistryConfig,
    manifest::{self, Blob, Document, Manifest},
    reference,
    registry::{Endpoint, endpoints},
    repository::Repository,
    store::{self, Store},
};

/// Layers fetched at the same time.
const PARALLEL: usize = 3;
/// Tries for one blob; each goes on where the last one broke off.
const TRIES: u32 = 5;
/// What a manifest is that does not say it.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

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
        let pulled = match Pull::new(images, &endpoint, &reference, auth, &progress).await {
            Ok(pull) => pull.run(&name).await,
            Err(error) => Err(error),
        };
        match pulled {
            Ok(image) => return Ok(image),
            // A mirror that lacks it or is away is no reason not to ask the next.
            Err(error) => failures.push((endpoint.host, error)),
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
    repository: Repository,
    /// Digest or tag.
    version: String,
    progress: &'a Progress,
}

impl<'a> Pull<'a> {
    async fn new(
        images: &'a Images,
        endpoint: &Endpoint,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        progress: &'a Progress,
    ) -> Result<Self> {
        let settings = images.registry_settings.replace("{host}", &endpoint.host);
        let client = images.clients.of(endpoint, auth).await;
        let client = client.map_err(|error| error.context(format!("the certificates that {settings} names")))?;
        let repository = Repository::new(endpoint, reference.repository(), settings, client)?;
        let version = reference.digest().or(reference.tag()).unwrap_or("latest").to_owned();
        Ok(Self { images, repository, version, progress })
    }

    async fn run(&self, name: &str) -> Result<Image> {
        let (manifest, bytes, digest) = self.manifest().await?;
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
    async fn manifest(&self) -> Result<(Manifest, Vec<u8>, String)> {
        let mut version = self.version.clone();
        for _ in 0..2 {
            let (bytes, digest) = self.repository.manifest(&version).await?;
            match manifest::parse(&bytes)? {
                Document::Manifest(manifest) => return Ok((*manifest, bytes, digest)),
                Document::Index(index) => version = manifest::for_this_node(&index)?.digest.clone(),
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
        // One that is there as a whole and does not count as such is wrong: it is written over.
        let written = Some(store.written(&blob.digest).await).filter(|written| *written < blob.size).unwrap_or(0);
        let (offset, parts) = self.repository.blob(&blob.digest, written).await?;
        received.fetch_add(offset, Ordering::Relaxed);
        let counted = Arc::clone(received);
        let parts = parts.inspect_ok(move |part| {
            counted.fetch_add(part.len() as u64, Ordering::Relaxed);
        });
        store.write(blob, HashMap::new(), offset, parts).await
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
        "" => MANIFEST,
        media_type => media_type,
    };
    let size = bytes.len() as u64;
    let blob = Blob { media_type: media_type.to_owned(), digest: digest.to_owned(), size, platform: None };
    let parts = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest.as_str());
    store.write_all(&blob, store::content_labels(parts), bytes).await?;
    store.label(&manifest.config.digest, store.snapshot_label(chain_id)).await?;
    store.name(name, store::descriptor(media_type, digest, size)).await
}
