//! Images in containerd: pulled, imported, unpacked, resolved.
//!
//! # Layout
//! - [`Images`]: the backend's interface. [`pull`]: from a registry. [`import`]: from an archive on the node.
//! - [`reference`]: image names. [`registry`]: hosts to ask. [`repository`]: requests. [`sign_in`]: credentials.
//!   [`transfer`]: download of a blob. [`tls`]: certificates. [`refusal`]: error answers. [`retry`]: when to ask a busy
//!   registry again.
//! - [`store`]: blobs, layers and names in containerd; a lease keeps them from its garbage collection while they are
//!   made.

mod import;
mod manifest;
mod pull;
pub(crate) mod reference;
mod refusal;
mod registry;
mod repository;
mod retry;
mod sign_in;
mod store;
mod tls;
mod transfer;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Deserialize;
use stanchion_sdk::{
    limits,
    oci::ImageConfig,
    runtime::{Error, ErrorKind, Image, ImageDetails, ImageDigest, Progress, PullImage, RegistryAuth, Result},
    users::Tables,
};

use crate::{client::Client, config::Config};

/// `[backend.containerd.registry."host"]`: settings of one registry.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Hosts to ask instead, in order, e.g. `http://127.0.0.1:5000`, or with a path, `https://mirror/v2/docker.io`.
    pub mirrors: Vec<String>,
    /// Rewrites of repository names for the mirrors: regular expressions and their replacements. The first that changes
    /// the name counts.
    pub rewrite: BTreeMap<String, String>,
    /// Use plain HTTP. Loopback addresses do anyway, unless certificates are set for them.
    pub plain_http: bool,
    /// PEM file with certificate authorities to trust in addition to the node's.
    pub ca_file: Option<PathBuf>,
    /// Accept any server certificate.
    pub insecure_skip_verify: bool,
    /// Client certificate, PEM, with the intermediate certificates up to its authority.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`, PEM, without a passphrase.
    pub key_file: Option<PathBuf>,
    /// User name for this registry, not for its mirrors: those have tables of their own.
    pub username: Option<String>,
    /// Password or token for this registry.
    pub password: Option<String>,
    /// Replaces user name and password: the token server gives tokens for it. `identitytoken` of Docker's config.json.
    pub identity_token: Option<String>,
}

// Omits password and token (I10).
impl fmt::Debug for RegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirrors, rewrite, plain_http, ca_file, insecure_skip_verify, cert_file, key_file, username, .. } =
            self;
        let mut shown = f.debug_struct("RegistryConfig");
        shown.field("mirrors", mirrors).field("rewrite", rewrite).field("plain_http", plain_http);
        shown.field("ca_file", ca_file).field("insecure_skip_verify", insecure_skip_verify);
        shown.field("cert_file", cert_file).field("key_file", key_file).field("username", username);
        shown.finish_non_exhaustive()
    }
}

impl RegistryConfig {
    /// Returns a pattern of `rewrite` that is no regular expression, and the reason.
    #[must_use]
    pub fn wrong_rewrite(&self) -> Option<(&str, String)> {
        self.rewrite.keys().find_map(|key| Some((key.as_str(), regex::Regex::new(key).err()?.to_string())))
    }

    fn credentials(&self) -> Option<RegistryAuth> {
        let Self { username, password, identity_token, .. } = self;
        RegistryAuth::of(username.as_deref(), password.as_deref(), identity_token.as_deref())
    }
}

/// Images of one containerd namespace.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    client: Client,
    snapshotter: Arc<str>,
    registries: Arc<BTreeMap<String, RegistryConfig>>,
    /// Name of the registry settings in error messages, with `{host}` for the host.
    registry_settings: Arc<str>,
    resolved: Arc<Mutex<HashMap<String, Resolved>>>,
    clients: registry::Clients,
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
            registries: Arc::new(config.registry.clone()),
            registry_settings: config.registry_settings.as_str().into(),
            resolved: Arc::default(),
            clients: registry::Clients::default(),
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
