//! Images: references, pulls and their progress.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ImageDigest;

/// An image that is present and ready to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Full reference of the image, e.g. `docker.io/library/redis:latest`.
    pub reference: String,
    /// Content address of the image.
    pub digest: ImageDigest,
    /// Size of the image's content, bytes.
    #[serde(default)]
    pub size: u64,
}

/// Parts of an image's configuration that the agent needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDetails {
    /// `USER`: a user, or user and group divided by `:`, by name or number; empty is root.
    #[serde(default)]
    pub user: String,
    /// `STOPSIGNAL` as the image writes it; `None` if the image has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Parameters of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullImage {
    /// Full reference, e.g. `docker.io/library/redis:latest` or `host:5000/name@sha256:…`.
    pub reference: String,
    /// Credentials to try; `None` is anonymous (the backend may have its own configuration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegistryAuth>,
}

/// Credentials for a registry. Debug does not show the secrets.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// User name; not needed with an identity token.
    #[serde(default)]
    pub username: String,
    /// Password or token.
    #[serde(default)]
    pub password: String,
    /// OAuth2 refresh token that replaces the password at the registry's token server: the `identitytoken` of Docker's
    /// config.json. Empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
}

impl RegistryAuth {
    /// Builds credentials from settings: an identity token takes precedence over user name and password. `None` without
    /// either.
    #[must_use]
    pub fn of(username: Option<&str>, password: Option<&str>, identity_token: Option<&str>) -> Option<Self> {
        if let Some(identity_token) = identity_token {
            return Some(Self { identity_token: identity_token.to_owned(), ..Self::default() });
        }
        Some(Self { username: username?.to_owned(), password: password?.to_owned(), ..Self::default() })
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Progress of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Bytes of layers received so far, including content that was present before.
    pub received: u64,
    /// Total bytes of layers; 0 while the manifest is not known.
    pub total: u64,
    /// Layers unpacked so far.
    #[serde(default)]
    pub layers_done: u32,
    /// Total number of layers.
    #[serde(default)]
    pub layers: u32,
}

/// Callback for the progress of a pull. Reporting never blocks.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(PullProgress) + Send + Sync>);

impl Progress {
    /// Creates a `Progress` that calls `listener` for every report.
    pub fn new(listener: impl Fn(PullProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Creates a `Progress` without a listener.
    #[must_use]
    pub fn ignored() -> Self {
        Self::new(|_| {})
    }

    /// Reports the progress to the listener.
    pub fn report(&self, progress: PullProgress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A runtime's image store: its directory, free space and images in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStore {
    /// Directory of the store on the node; identifies the store.
    pub path: PathBuf,
    /// Size of its file system, bytes.
    pub capacity: u64,
    /// Space that the runtime can still write, bytes.
    pub available: u64,
    /// Images that containers run or mount, whether the containers are alive or dead, Stanchion's or not. Each image is
    /// listed under every name that it has: reference and digest, as in `list_images`.
    #[serde(default)]
    pub in_use: Vec<String>,
}

/// An image to remove if nothing uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedImage {
    /// Full reference.
    pub reference: String,
    /// Digest that the reference must still have.
    pub digest: ImageDigest,
}

/// Parameters of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportImages {
    /// Absolute path of the archive on the node.
    pub path: PathBuf,
}
