//! Pull of an image from its registry.

use std::collections::HashMap;

use futures_util::Stream;
use stanchion_registry::{Blobs, Repository, reference, together};
use stanchion_sdk::{
    limits,
    oci::{self, Descriptor, Found, ImageConfig, Manifest},
    runtime::{ErrorKind, Image, ImageDigest, Progress, PullImage, PullProgress, Result},
};
use tokio_util::bytes::Bytes;

use super::{
    Images,
    store::{self, Store},
};

pub(super) async fn pull(images: &Images, request: PullImage, progress: Progress) -> Result<Image> {
    let name = request.reference;
    let reference = reference::parse(&name)?;
    let mut failures = Vec::new();
    for endpoint in images.registries.endpoints(&reference) {
        let pulled = match images.registries.repository(&endpoint, &reference, request.auth.as_ref()).await {
            Ok(repository) => {
                let version = reference::version(&reference);
                Pull { images, repository, version, progress: &progress }.run(&name).await
            }
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

struct Pull<'a> {
    images: &'a Images,
    repository: Repository,
    /// Digest or tag.
    version: &'a str,
    progress: &'a Progress,
}

impl Pull<'_> {
    async fn run(&self, name: &str) -> Result<Image> {
        let Found { manifest, bytes, digest } = *self.repository.find(self.version).await?;
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
        self.repository.fetch(manifest, store, self.progress).await?;
        let config = ImageConfig::read(&store.read(&manifest.config.digest, limits::CONFIG).await?)?;
        store.unpack(&manifest.layers, config.diff_ids()).await
    }
}

impl Blobs for Store {
    async fn has(&self, digest: &str) -> Result<bool> {
        self.has(digest).await
    }

    async fn check_room(&self, bytes: u64) -> Result<()> {
        self.check_room(bytes).await
    }

    async fn written(&self, digest: &str) -> u64 {
        self.written(digest).await
    }

    async fn write(
        &self,
        blob: &Descriptor,
        offset: u64,
        parts: impl Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Result<()> {
        self.write(blob, HashMap::new(), offset, parts).await
    }

    async fn abort(&self, digest: &str) {
        self.abort(digest).await;
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
