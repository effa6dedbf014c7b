//! Pull of an image from its registry.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::distribution::Reference;
use stanchion_sdk::{
    limits,
    oci::{self, Descriptor, Found, ImageConfig, Manifest, Next, Search},
    runtime::{Error, ErrorKind, Image, ImageDigest, Progress, PullImage, PullProgress, RegistryAuth, Result},
};

use super::{
    Images, RegistryConfig, reference,
    registry::{Endpoint, endpoints},
    repository::Repository,
    store::{self, Store},
};

/// Number of layers that are fetched at the same time.
const PARALLEL: usize = 3;
/// Tries for one blob; each resumes where the last one broke off.
const TRIES: u32 = 5;

pub(super) async fn pull(images: &Images, request: PullImage, progress: Progress) -> Result<Image> {
    let name = request.reference.clone();
    let reference = reference::parse(&name)?;
    let host = reference.registry().to_owned();
    let mut failures = Vec::new();
    for endpoint in endpoints(&host, &images.registries) {
        // Credentials go to their own host, and not to its mirrors.
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
            // A mirror may lack the image or be away: the next host is asked.
            Err(error) => failures.push((endpoint.host, error)),
        }
    }
    Err(together(&name, failures))
}

/// Joins the failures of all hosts that were asked. The one that says most decides what happens next: an answer rather
/// than none, and the image's own registry rather than its mirrors.
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
        let Found { manifest, bytes, digest } = *self.manifest().await?;
        let size = manifest.size();
        let layers = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
        let image = Image { reference: name.to_owned(), digest: ImageDigest(digest), size };
        if !self.is_here(&image).await? {
            self.complete(&image, &manifest, bytes).await?;
        }
        self.progress.report(PullProgress { received: size, total: size, layers_done: layers, layers });
        Ok(image)
    }

    /// Returns whether the name stands for this very image already, ready to run.
    async fn is_here(&self, image: &Image) -> Result<bool> {
        let target = self.images.store().target(&image.reference).await?;
        let same = target.is_some_and(|target| target.digest == image.digest.0);
        // Part of it may be gone: then it is fetched again.
        Ok(same && self.images.resolve(&image.reference).await.is_ok())
    }

    /// Fetches what is missing, unpacks the image, and names it.
    async fn complete(&self, image: &Image, manifest: &Manifest, bytes: Vec<u8>) -> Result<()> {
        let store = self.images.store().leased().await?.of_place(self.repository.host());
        let named = match self.named(&store, image, manifest, bytes.clone()).await {
            // A garbage collection has removed content that was here before the lease: now it is fetched.
            Err(error) if error.kind() == ErrorKind::NotFound => self.named(&store, image, manifest, bytes).await,
            done => done,
        };
        store.end(&named);
        named?;
        self.images.forget_resolved();
        Ok(())
    }

    /// Unpacks the image and names it.
    async fn named(&self, store: &Store, image: &Image, manifest: &Manifest, bytes: Vec<u8>) -> Result<()> {
        let chain_id = self.unpacked(store, manifest).await?;
        finish(store, &image.reference, manifest, bytes, &image.digest.0, &chain_id).await
    }

    /// Fetches all blobs and unpacks them.
    async fn unpacked(&self, store: &Store, manifest: &Manifest) -> Result<String> {
        let config = &manifest.config;
        limits::CONFIG.check(config.size).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("the image configuration {}", config.digest)).caused_by(&error)
        })?;
        self.blobs(store, manifest).await?;
        let config = ImageConfig::read(&store.read(&config.digest, limits::CONFIG).await?)?;
        store.unpack(&manifest.layers, config.diff_ids()).await
    }

    /// Fetches the manifest for this node.
    async fn manifest(&self) -> Result<Box<Found>> {
        let (bytes, digest) = self.repository.manifest(&self.version).await?;
        let mut search = Search::of(bytes, digest)?;
        loop {
            let (blob, limit) = match search.step()? {
                Next::Found(found) => return Ok(found),
                Next::Read(blob, limit) => (blob, limit),
            };
            let bytes = match limit == limits::CONFIG {
                true => self.repository.small_blob(&blob, limit).await?,
                false => self.repository.manifest(&blob.digest).await?.0,
            };
            search.take(bytes)?;
        }
    }

    /// Fetches the configuration and all layers, several at once.
    async fn blobs(&self, store: &Store, manifest: &Manifest) -> Result<()> {
        let mut seen = HashSet::new();
        let blobs: Vec<Descriptor> = manifest
            .layers
            .iter()
            .chain([&manifest.config])
            .filter(|blob| seen.insert(blob.digest.clone()))
            .cloned()
            .collect();
        let total = oci::total(&blobs);
        self.check_room(store, &blobs).await?;
        let layers = u32::try_from(manifest.layers.len()).unwrap_or(u32::MAX);
        let received = Arc::new(AtomicU64::new(0));
        let report = |received: u64| {
            self.progress.report(PullProgress { received, total, layers_done: 0, layers });
        };
        report(0);
        let fetches = stream::iter(blobs).map(|blob: Descriptor| {
            let received = Arc::clone(&received);
            async move {
                self.blob(store, &blob, &received).await?;
                report(received.load(Ordering::Relaxed));
                Ok(())
            }
        });
        fetches.buffer_unordered(PARALLEL).try_collect::<()>().await
    }

    /// Refuses an image whose missing blobs do not fit on the disk.
    async fn check_room(&self, store: &Store, blobs: &[Descriptor]) -> Result<()> {
        let mut missing = 0_u64;
        for blob in blobs {
            if !store.has(&blob.digest).await? {
                missing = missing.saturating_add(blob.size);
            }
        }
        if missing > 0 { store.check_room(missing).await } else { Ok(()) }
    }

    async fn blob(&self, store: &Store, blob: &Descriptor, received: &Arc<AtomicU64>) -> Result<()> {
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
                // No try can resume from wrong content.
                Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Other) => {
                    store.abort(&blob.digest).await;
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    /// Fetches a blob, from where the last try broke off.
    async fn fetch(&self, store: &Store, blob: &Descriptor, received: &Arc<AtomicU64>) -> Result<()> {
        // A complete write that did not become a blob is wrong: it is overwritten.
        let written = Some(store.written(&blob.digest).await).filter(|written| *written < blob.size).unwrap_or(0);
        let (offset, parts) = self.repository.blob(blob, written).await?;
        received.fetch_add(offset, Ordering::Relaxed);
        let counted = Arc::clone(received);
        let parts = parts.inspect_ok(move |part| {
            counted.fetch_add(part.len() as u64, Ordering::Relaxed);
        });
        store.write(blob, HashMap::new(), offset, parts).await
    }
}

/// Writes the manifest and the labels that keep the image's content, and names the image.
pub(super) async fn finish(
    store: &Store,
    name: &str,
    manifest: &Manifest,
    bytes: Vec<u8>,
    digest: &str,
    chain_id: &str,
) -> Result<()> {
    let media_type = match manifest.media_type.as_str() {
        "" => oci::MANIFEST,
        media_type => media_type,
    };
    let size = bytes.len() as u64;
    let blob = Descriptor::new(media_type, digest.to_owned(), size);
    let parts = manifest.layers.iter().chain([&manifest.config]).map(|blob| blob.digest.as_str());
    store.write_all(&blob, store::content_labels(parts), bytes).await?;
    store.label(&manifest.config.digest, store.snapshot_label(chain_id)).await?;
    store.name(name, store::descriptor(media_type, digest, size)).await
}
