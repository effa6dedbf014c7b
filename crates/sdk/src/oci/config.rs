//! Image configurations.

use serde::Deserialize;
use stanchion_runtime::{Error, ErrorKind, Result};

use super::{Platform, lenient};
use crate::limits;

/// Parts of an image configuration that running the image needs (OCI image specification, `config.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// CPU architecture, `amd64`, …; empty if the configuration has none.
    #[serde(deserialize_with = "lenient::or_default")]
    pub architecture: String,
    /// Operating system, `linux`, …; empty if the configuration has none.
    #[serde(deserialize_with = "lenient::or_default")]
    pub os: String,
    /// Variant of the architecture, e.g. `v3`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub variant: String,
    /// `config`: defaults for containers whose pod does not override them.
    #[serde(deserialize_with = "lenient::or_default")]
    pub config: RunConfig,
    #[serde(deserialize_with = "lenient::or_default")]
    rootfs: RootFs,
}

/// Defaults of an image for containers whose pod does not override them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `User`: user and group, by name or number; empty for root.
    #[serde(deserialize_with = "lenient::or_default")]
    pub user: String,
    /// `Env`: `NAME=value`.
    #[serde(deserialize_with = "lenient::texts")]
    pub env: Vec<String>,
    /// `Entrypoint`: program and fixed arguments.
    #[serde(deserialize_with = "lenient::texts")]
    pub entrypoint: Vec<String>,
    /// `Cmd`: arguments of the entry point.
    #[serde(deserialize_with = "lenient::texts")]
    pub cmd: Vec<String>,
    /// `Volumes`: directories of volumes, in alphabetical order.
    #[serde(deserialize_with = "lenient::keys")]
    pub volumes: Vec<String>,
    /// `WorkingDir`; empty for `/`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub working_dir: String,
    /// `StopSignal`, by name or number; empty for SIGTERM.
    #[serde(deserialize_with = "lenient::or_default")]
    pub stop_signal: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct RootFs {
    #[serde(deserialize_with = "lenient::texts")]
    diff_ids: Vec<String>,
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// `Invalid`: it is no configuration, or larger than [`limits::CONFIG`].
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Invalid, "the image configuration cannot be read");
        limits::CONFIG.check(bytes.len() as u64).map_err(|error| bad().caused_by(&error))?;
        serde_json::from_slice(bytes).map_err(|error| bad().caused_by(&error))
    }

    /// Returns the image's platform.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            os_features: Vec::new(),
        }
    }

    /// Returns the digests of the layers' contents, the lowest first.
    #[must_use]
    pub fn diff_ids(&self) -> &[String] {
        &self.rootfs.diff_ids
    }
}
