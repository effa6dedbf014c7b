//! Image manifests, indexes and configurations (OCI image specification, Docker image manifest version 2). They are
//! read as leniently as containerd and Docker do: an absent field equals `null`, and an unused field may hold anything.
//! They come from registries and archives, so every list has a bound.
//!
//! # Layout
//! - This module: descriptors, manifests, digests. [`config`]: image configurations. [`platform`]: the platforms that
//!   this node runs.
//! - [`search`]: from an index to the manifest for this node. `lenient`: lenient reading of fields.

pub mod config;
mod lenient;
pub mod platform;
pub mod search;

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256, Sha384, Sha512};
use stanchion_runtime::{Error, ErrorKind, Result};

pub use config::{ImageConfig, RunConfig};
pub use platform::Platform;
pub use search::{Found, Next, Search};

use crate::limits;

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of Docker's image manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of Docker's index.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Reference to one blob of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// Media type of the blob; empty if the descriptor has none.
    #[serde(deserialize_with = "lenient::or_default")]
    pub media_type: String,
    /// Digest of the blob, `sha256:…`.
    #[serde(deserialize_with = "lenient::or_default")]
    pub digest: String,
    /// Size of the blob, bytes.
    #[serde(deserialize_with = "lenient::or_default")]
    pub size: u64,
    /// Platform of the manifest, in an index.
    pub platform: Option<Platform>,
    #[serde(deserialize_with = "lenient::or_default")]
    annotations: Annotations,
}

/// Annotations with an image's name in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "io.containerd.image.name")]
    full_name: Option<String>,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    ref_name: Option<String>,
}

impl Descriptor {
    /// Returns a descriptor of a blob.
    #[must_use]
    pub fn new(media_type: &str, digest: String, size: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size, ..Self::default() }
    }

    /// Returns the image's name in the `index.json` of an archive.
    #[must_use]
    pub fn image_name(&self) -> Option<&str> {
        self.annotations.full_name.as_deref().or(self.annotations.ref_name.as_deref())
    }

    /// Checks that the digest is of a known kind and that the size is possible. Digests become parts of URLs and file
    /// names.
    ///
    /// # Errors
    /// `Invalid`: one of the two is wrong.
    pub fn check(&self) -> Result<()> {
        let shown = || limits::SHOWN.cut(&self.digest).into_owned();
        if !is_digest(&self.digest) {
            return Err(Error::new(ErrorKind::Invalid, format!("{:?} is not the digest of a blob", shown())));
        }
        if i64::try_from(self.size).is_err() {
            return Err(Error::new(ErrorKind::Invalid, format!("blob {} cannot have {} bytes", shown(), self.size)));
        }
        Ok(())
    }
}

/// An image manifest, OCI's or Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Media type of the manifest; empty if it has none.
    pub media_type: String,
    /// Descriptor of the image configuration.
    pub config: Descriptor,
    /// Descriptors of the layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Returns the total size of the layers, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        total(&self.layers)
    }
}

/// Returns the total size of blobs, bytes. Saturates, because others wrote the sizes.
#[must_use]
pub fn total(blobs: &[Descriptor]) -> u64 {
    blobs.iter().fold(0, |total: u64, blob| total.saturating_add(blob.size))
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Manifest of one image.
    Manifest(Box<Manifest>),
    /// Manifests for several platforms, without unreadable entries.
    Index(Vec<Descriptor>),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    #[serde(deserialize_with = "lenient::or_default")]
    media_type: String,
    config: Option<Descriptor>,
    #[serde(deserialize_with = "lenient::layers")]
    layers: Option<Vec<Descriptor>>,
    #[serde(deserialize_with = "lenient::entries")]
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// # Errors
    /// `Invalid`: it is neither, or both at once (CVE-2021-41190), or larger than [`limits::MANIFEST`].
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Invalid, "the image manifest cannot be read");
        limits::MANIFEST.check(bytes.len() as u64).map_err(|error| bad().caused_by(&error))?;
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| bad().caused_by(&error))?;
        match (raw.manifests, raw.config) {
            _ if raw.fs_layers.is_some() => {
                Err(bad().because("it is of Docker's schema 1, which no runtime reads any more"))
            }
            (Some(_), Some(_)) => Err(bad().because("it is a manifest and an index at once")),
            (Some(_), None) if raw.layers.is_some() => Err(bad().because("it is a manifest and an index at once")),
            (Some(entries), None) => Ok(Self::Index(entries)),
            (None, None) => Err(bad().because("it names no image configuration")),
            (None, Some(config)) => {
                let layers = raw.layers.unwrap_or_default();
                for blob in layers.iter().chain([&config]) {
                    blob.check().map_err(|error| error.context("the image manifest cannot be used"))?;
                }
                Ok(Self::Manifest(Box::new(Manifest { media_type: raw.media_type, config, layers })))
            }
        }
    }
}

/// Reads the index of an OCI layout and returns each image name, completed by `full`, with its entries, which may be
/// for several platforms. Entries without a name are left out.
///
/// # Errors
/// `Invalid`: it is no index, or larger than [`limits::MANIFEST`].
pub fn named_images(index: &[u8], full: impl Fn(&str) -> String) -> Result<Vec<(String, Vec<Descriptor>)>> {
    let bad = "index.json cannot be read";
    let Document::Index(entries) = Document::read(index).map_err(|error| error.context(bad))? else {
        return Err(Error::new(ErrorKind::Invalid, bad).because("it is no index"));
    };
    let mut named: Vec<(String, Vec<Descriptor>)> = Vec::new();
    for entry in entries {
        let Some(name) = entry.image_name().map(&full) else { continue };
        match named.iter_mut().find(|(known, _)| *known == name) {
            Some((_, entries)) => entries.push(entry),
            None => named.push((name, vec![entry])),
        }
    }
    Ok(named)
}

/// Returns the digest of bytes, `sha256:…`.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Returns whether a text is a digest of a kind that containerd and Docker know.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.split_once(':').is_some_and(|(kind, sum)| {
        let length = match kind {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        sum.len() == length && is_hex(sum)
    })
}

/// Returns whether bytes have a digest; `None` for a digest of an unknown kind.
#[must_use]
pub fn has_digest(bytes: &[u8], digest: &str) -> Option<bool> {
    fn of<D: Digest>(bytes: &[u8]) -> Vec<u8> {
        D::digest(bytes).to_vec()
    }
    let (kind, expected) = digest.split_once(':')?;
    let found = match kind {
        "sha256" => of::<Sha256>(bytes),
        "sha384" => of::<Sha384>(bytes),
        "sha512" => of::<Sha512>(bytes),
        _ => return None,
    };
    Some(hex::encode(found) == expected)
}

#[cfg(test)]
mod tests;
