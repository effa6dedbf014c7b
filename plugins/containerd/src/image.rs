//! Images in containerd: pulled, imported, unpacked, resolved.
//!
//! # Layout
//! - [`Images`]: what the backend uses. [`pull`]: from a registry. [`import`]: from an archive on the node.
//! - [`reference`]: names of images. [`registry`]: whom to ask for them. [`repository`]: asking. [`sign_in`]: what a
//!   registry wants to be shown. [`transfer`]: the bytes of a blob. [`tls`]: certificates. [`refusal`]: what it says against it. [`retry`]: when a busy one wants
//!   to be asked again.
//! - [`store`]: blobs, layers and names in containerd, kept from its garbage collection by a lease while they are made.

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

/// `[backend.containerd.registry."host"]`: how a registry is reached.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Asked instead, in order, e.g. `http://127.0.0.1:5000`, or below a path, `https://mirror/v2/docker.io`.
    pub mirrors: Vec<String>,
    /// What images are called there: regular expressions for their repositories, and what they become. The first that
    /// changes something counts.
    pub rewrite: BTreeMap<String, String>,
    /// Reached over plain HTTP. Loopback addresses are, unless certificates are set for them.
    pub plain_http: bool,
    /// Certificates of authorities that it is trusted by, beside the node's: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Taken with any certificate.
    pub insecure_skip_verify: bool,
    /// The certificate that is shown to it, PEM, with those between it and its authority.
    pub cert_file: Option<PathBuf>,
    /// The private key of `cert_file`, PEM, without a passphrase.
    pub key_file: Option<PathBuf>,
    /// User name for it, and not for its mirrors: those have tables of their own.
    pub username: Option<String>,
    /// Password or token for it.
    pub password: Option<String>,
    /// In place of both: what its token server gives tokens for, the `identitytoken` of Docker's config.json.
    pub identity_token: Option<String>,
}

// Without password and token (I10).
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
    /// A pattern of `rewrite` that is none, and why.
    #[must_use]
    pub fn wrong_rewrite(&self) -> Option<(&str, String)> {
        self.rewrite.keys().find_map(|key| Some((key.as_str(), regex::Regex::new(key).err()?.to_string())))
    }

    fn credentials(&self) -> Option<RegistryAuth> {
        let Self { username, password, identity_token, .. } = self;
        RegistryAuth::of(username.as_deref(), password.as_deref(), identity_token.as_deref())
    }
}

/// The images of one containerd namespace.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    client: Client,
    snapshotter: Arc<str>,
    registries: Arc<BTreeMap<String, RegistryConfig>>,
    /// Where they are set, with `{host}` for the host.
    registry_settings: Arc<str>,
    resolved: Arc<Mutex<HashMap<String, Resolved>>>,
    clients: registry::Clients,
    /// Where archives are unpacked: on the disk that keeps the agent's state.
    work: Arc<Path>,
}

/// An image, ready to be run.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Content address of its manifest.
    pub digest: ImageDigest,
    /// The snapshot that holds its files.
    pub chain_id: String,
    /// What it says about running it.
    pub config: Arc<ImageConfig>,
    /// Its users, once they have been looked up.
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

    /// Images by name.
    pub async fn list(&self) -> Result<Vec<Image>> {
        let images = self.store().images().await?;
        let image = |image: containerd_client::services::v1::Image| {
            let target = image.target.unwrap_or_default();
            let size = u64::try_from(target.size).unwrap_or(0);
            Image { reference: image.name, digest: ImageDigest(target.digest), size }
        };
        Ok(images.into_iter().map(image).collect())
    }

    /// Forgets an image's name; containerd's garbage collection takes what nothing else uses.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        self.store().forget(reference, false).await
    }

    /// The same, over when that has been done.
    pub async fn erase(&self, reference: &str) -> Result<()> {
        self.store().forget(reference, true).await?;
        self.forget_resolved();
        Ok(())
    }

    /// The content address of an image that is present.
    pub async fn digest(&self, reference: &str) -> Result<Option<ImageDigest>> {
        Ok(self.store().target(reference).await?.map(|target| ImageDigest(target.digest)))
    }

    /// Where the files of images are on the node.
    pub async fn root(&self) -> Result<PathBuf> {
        self.store().root().await
    }

    /// What is needed to run an image.
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
            // Imported by somebody else, who did not unpack it.
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

    /// What an image that is present says about running it.
    pub async fn details(&self, reference: &str) -> Result<ImageDetails> {
        let resolved = self.resolve(reference).await?;
        let config = &resolved.config.config;
        let stop_signal = Some(config.stop_signal.clone()).filter(|name| !name.is_empty());
        Ok(ImageDetails { user: config.user.clone(), stop_signal })
    }

    /// Notes the users of an image that was resolved.
    pub fn keep_tables(&self, image: &Resolved, tables: &Arc<Tables>) {
        if let Some(known) = self.known().get_mut(image.digest.as_str()) {
            known.tables = Some(Arc::clone(tables));
        }
    }

    /// Drops what is remembered of images: something of them may be gone.
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
