//! Images in containerd: pulled, imported, unpacked, resolved.
//!
//! # Layout
//! - [`Images`]: the backend's interface. [`pull`]: from a registry, which [`stanchion_registry`] asks. [`import`]: from
//!   an archive on the node.
//! - [`store`]: blobs, layers and names in containerd; a lease keeps them from its garbage collection while they are
//!   made.

mod import;
mod manifest;
mod pull;
mod store;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use stanchion_registry::Registries;
use stanchion_sdk::{
    limits,
    oci::ImageConfig,
    runtime::{Error, ErrorKind, Image, ImageDetails, ImageDigest, Progress, PullImage, Result},
    users::Tables,
};

use crate::{client::Client, config::Config};

/// Images of one containerd namespace.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    client: Client,
    snapshotter: Arc<str>,
    registries: Registries,
    resolved: Arc<Mutex<HashMap<String, Resolved>>>,
    /// Directory to unpack archives in, on the disk of the agent's state.
    work: Arc<Path>,
}

/// Image that is ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Digest of its manifest.
    pub digest: ImageDigest,
    /// Snapshot that holds its files.
    pub chain_id: String,
    /// Its OCI image configuration.
    pub config: Arc<ImageConfig>,
    /// Its user tables, once they have been read.
    pub tables: Option<Arc<Tables>>,
}

impl Images {
    pub fn new(client: Client, config: &Config, work: PathBuf) -> Self {
        Self {
            client,
            snapshotter: config.snapshotter.as_str().into(),
            registries: Registries::new(config.registry.clone(), &config.registry_settings),
            resolved: Arc::default(),
            work: work.into(),
        }
    }

    /// Pulls an image and makes it ready to run.
    pub async fn pull(&self, request: PullImage, progress: Progress) -> Result<Image> {
        pull::pull(self, request, progress).await
    }

    /// Imports the images of an archive.
    pub async fn import(&self, path: &Path) -> Result<Vec<Image>> {
        import::import(self, path).await
    }

    /// Lists images by name.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let images = self.store().images().await?;
        let image = |image: containerd_client::services::v1::Image| {
            let target = image.target.unwrap_or_default();
            let size = u64::try_from(target.size).unwrap_or(0);
            Image { reference: image.name, digest: ImageDigest(target.digest), size }
        };
        Ok(images.into_iter().map(image).collect())
    }

    /// Removes an image's name; containerd's garbage collection removes what nothing else uses.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        self.store().forget(reference, false).await
    }

    /// Removes an image's name and waits for the garbage collection.
    pub async fn erase(&self, reference: &str) -> Result<()> {
        self.store().forget(reference, true).await?;
        self.forget_resolved();
        Ok(())
    }

    /// Returns the digest of an image that is present.
    pub async fn digest(&self, reference: &str) -> Result<Option<ImageDigest>> {
        Ok(self.store().target(reference).await?.map(|target| ImageDigest(target.digest)))
    }

    /// Returns the directory of the images' files on the node.
    pub async fn root(&self) -> Result<PathBuf> {
        self.store().root().await
    }

    /// Returns all that is needed to run an image.
    pub async fn resolve(&self, reference: &str) -> Result<Resolved> {
        let target =
            self.store().target(reference).await?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("image {reference} is not present on this node"))
            })?;
        if let Some(known) = self.known().get(&target.digest) {
            return Ok(known.clone());
        }
        let store = self.store();
        let manifest = manifest::of(&store, &target).await?;
        let config = store.read(&manifest.config.digest, limits::CONFIG).await?;
        let config = ImageConfig::read(&config).map_err(|error| error.context(format!("image {reference}")))?;
        let chain_id = match store::chain_ids(config.diff_ids()).pop() {
            Some(chain_id) if store.has_snapshot(&chain_id).await? => chain_id,
            // Somebody else imported it and did not unpack it.
            Some(_) => {
                let leased = store.leased().await?;
                let unpacked = leased.unpack(&manifest.layers, config.diff_ids()).await;
                leased.end(&unpacked);
                unpacked?
            }
            None => String::new(),
        };
        let resolved =
            Resolved { digest: ImageDigest(target.digest.clone()), chain_id, config: Arc::new(config), tables: None };
        self.known().insert(target.digest, resolved.clone());
        Ok(resolved)
    }

    /// Returns user and stop signal of an image that is present.
    pub async fn details(&self, reference: &str) -> Result<ImageDetails> {
        let resolved = self.resolve(reference).await?;
        let config = &resolved.config.config;
        let stop_signal = Some(config.stop_signal.clone()).filter(|name| !name.is_empty());
        Ok(ImageDetails { user: config.user.clone(), stop_signal })
    }

    /// Caches the user tables of a resolved image.
    pub fn keep_tables(&self, image: &Resolved, tables: &Arc<Tables>) {
        if let Some(known) = self.known().get_mut(image.digest.as_str()) {
            known.tables = Some(Arc::clone(tables));
        }
    }

    /// Clears the cache of resolved images: parts of them may be gone.
    pub fn forget_resolved(&self) {
        self.known().clear();
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Resolved>> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> store::Store {
        store::Store::new(self.client.clone(), Arc::clone(&self.snapshotter))
    }
}
