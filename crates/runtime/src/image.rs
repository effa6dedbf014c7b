//! Images: references, pulls and their progress.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::ImageDigest;

/// An image that is present and ready to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The full reference it is known by, e.g. `docker.io/library/redis:latest`.
    pub reference: String,
    /// Its content address.
    pub digest: ImageDigest,
    /// Size of its content, bytes.
    #[serde(default)]
    pub size: u64,
}

/// What an image says about running it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDetails {
    /// `USER`: a user, or user and group divided by `:`, by name or number; empty is root.
    #[serde(default)]
    pub user: String,
    /// `STOPSIGNAL` as it is written; `None` where it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
}

/// Which image to pull, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullImage {
    /// Full reference, e.g. `docker.io/library/redis:latest` or `host:5000/name@sha256:…`.
    pub reference: String,
    /// Credentials to try; `None` is anonymous (the backend may have its own configuration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegistryAuth>,
}

/// Credentials for a registry. Debug does not show what is secret of them.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// User name; an identity token needs none.
    #[serde(default)]
    pub username: String,
    /// Password or token.
    #[serde(default)]
    pub password: String,
    /// In place of the password: what the registry's token server gives tokens for, OAuth2's refresh token, the
    /// `identitytoken` of Docker's config.json. Empty is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity_token: String,
}

impl RegistryAuth {
    /// As settings have them: an identity token goes before a password. `None` without either.
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

/// How far a pull has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Bytes of layers received so far, content that was present already included.
    pub received: u64,
    /// Bytes of layers in all; 0 while the manifest is not known.
    pub total: u64,
    /// Layers unpacked so far.
    #[serde(default)]
    pub layers_done: u32,
    /// Layers in all.
    #[serde(default)]
    pub layers: u32,
}

/// Where a backend reports the progress of a pull. Reporting never blocks.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(PullProgress) + Send + Sync>);

impl Progress {
    /// Calls `listener` for every report.
    pub fn new(listener: impl Fn(PullProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Nobody listens.
    #[must_use]
    pub fn ignored() -> Self {
        Self::new(|_| {})
    }

    /// Tells how far the pull has come.
    pub fn report(&self, progress: PullProgress) {
        (self.0)(progress);
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// Where a runtime keeps its images, how full that is, and which of them are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageStore {
    /// The directory on the node that their files are in. Another store has another.
    pub path: PathBuf,
    /// Size of its file system, bytes.
    pub capacity: u64,
    /// What the runtime can still write to it, bytes.
    pub available: u64,
    /// The images that containers are made of or have mounted, running and dead ones, ours and others', in every way that they are
    /// known by: reference or digest, as `list_images` has them.
    #[serde(default)]
    pub in_use: Vec<String>,
}

/// An image to be removed if nothing uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedImage {
    /// Full reference.
    pub reference: String,
    /// What it must still stand for.
    pub digest: ImageDigest,
}

/// Which archive to import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportImages {
    /// Absolute path of the archive on the node.
    pub path: PathBuf,
}
