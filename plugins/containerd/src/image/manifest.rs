//! Manifests: what an image consists of.

use containerd_client::types::Descriptor;
use serde::{Deserialize, Serialize};
use stanchion_sdk::runtime::{Error, ErrorKind, Result};

use super::store::Store;

/// One blob of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob {
    #[serde(default)]
    pub media_type: String,
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What a manifest of an index is for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Platform {
    pub architecture: String,
    pub os: String,
}

/// An image manifest, OCI's or Docker's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// An index: manifests for several platforms.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Index {
    pub manifests: Vec<Blob>,
}

/// A manifest or an index.
pub(super) enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// Reads a manifest or an index.
pub(super) fn parse(bytes: &[u8]) -> Result<Document> {
    let bad = |error: &(dyn std::error::Error + 'static)| {
        Error::new(ErrorKind::Invalid, "an image manifest cannot be read").caused_by(error)
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| bad(&error))?;
    if value.get("manifests").is_some() {
        return serde_json::from_value(value).map(Document::Index).map_err(|error| bad(&error));
    }
    serde_json::from_value(value).map(|manifest| Document::Manifest(Box::new(manifest))).map_err(|error| bad(&error))
}

/// The manifest of an index that this node can run.
pub(super) fn for_this_node(index: &Index) -> Result<&Blob> {
    let own = Platform {
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        },
        os: "linux".to_owned(),
    };
    let fits = |blob: &&Blob| blob.platform.as_ref().is_none_or(|platform| *platform == own);
    index.manifests.iter().find(fits).ok_or_else(|| {
        let architecture = &own.architecture;
        Error::new(ErrorKind::NotFound, format!("the image has no variant for linux/{architecture}"))
    })
}

/// The manifest behind an image's target in the store.
pub(super) async fn of(store: &Store, target: &Descriptor) -> Result<Manifest> {
    match parse(&store.read(&target.digest).await?)? {
        Document::Manifest(manifest) => Ok(*manifest),
        Document::Index(index) => match parse(&store.read(&for_this_node(&index)?.digest).await?)? {
            Document::Manifest(manifest) => Ok(*manifest),
            Document::Index(_) => Err(Error::new(ErrorKind::Invalid, "an image index names another index")),
        },
    }
}
