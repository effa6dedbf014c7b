//! Malformed image archives.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    fixtures::Fixtures,
    image::{archive, sha256},
};

/// Number of indexes in [`Archive::Chain`].
const CHAIN: usize = 2_000;

/// Kind of malformed archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archive {
    /// An index that names itself.
    Circle,
    /// An index that names an index that names an index …
    Chain,
    /// The first half of a good archive.
    Truncated,
    /// Blobs that do not match their digests.
    Forged,
}

impl Archive {
    pub(super) const ALL: [Self; 4] = [Self::Circle, Self::Truncated, Self::Chain, Self::Forged];

    /// Writes an archive of this kind.
    pub(super) fn write(self, fixtures: &Fixtures, path: &Path) -> Result<()> {
        match self {
            Self::Circle => {
                let digest = "0".repeat(64);
                layout(path, &digest, &[(digest.clone(), index(&digest, 100))])
            }
            Self::Chain => {
                let mut blobs: Vec<(String, Vec<u8>)> = Vec::new();
                let mut next = "1".repeat(64);
                for _ in 0..CHAIN {
                    let content = index(&next, 100);
                    next = sha256(&content);
                    blobs.push((next.clone(), content));
                }
                layout(path, &next, &blobs)
            }
            Self::Forged => {
                let digest = "2".repeat(64);
                let manifest = json!({
                    "schemaVersion": 2,
                    "config": descriptor("application/vnd.oci.image.config.v1+json", &digest, u64::MAX / 2),
                    "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &digest, 1)],
                });
                layout(path, &digest, &[(digest.clone(), manifest.to_string().into_bytes())])
            }
            Self::Truncated => {
                let good = fixtures.oci_archive();
                let mut bytes = fs::read(&good).with_context(|| format!("cannot read {}", good.display()))?;
                bytes.truncate(bytes.len() / 2);
                fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
            }
        }
    }
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

fn index(digest: &str, size: u64) -> Vec<u8> {
    let entry = descriptor("application/vnd.oci.image.index.v1+json", digest, size);
    json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes()
}

/// Writes an OCI image layout whose index names one blob.
fn layout(path: &Path, first: &str, blobs: &[(String, Vec<u8>)]) -> Result<()> {
    let mut entry = descriptor("application/vnd.oci.image.index.v1+json", first, 100);
    entry["annotations"] = json!({ "io.containerd.image.name": "docker.io/hostile/archive:latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
    let mut files = vec![
        ("oci-layout".to_owned(), &br#"{"imageLayoutVersion":"1.0.0"}"#[..]),
        ("index.json".to_owned(), index.as_bytes()),
    ];
    files.extend(blobs.iter().map(|(digest, content)| (format!("blobs/sha256/{digest}"), content.as_slice())));
    archive(path, &files)
}
