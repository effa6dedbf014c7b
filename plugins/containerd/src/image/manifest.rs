//! Manifests: configuration and layers of an image.

use containerd_client::types::Descriptor;
use stanchion_sdk::{
    limits,
    oci::{Manifest, Next, Search},
    runtime::Result,
};

use super::store::Store;

/// Returns the manifest behind an image's target in the store.
pub(super) async fn of(store: &Store, target: &Descriptor) -> Result<Manifest> {
    let bytes = store.read(&target.digest, limits::MANIFEST).await?;
    let mut search = Search::of(bytes, target.digest.clone())?;
    loop {
        match search.step()? {
            Next::Found(found) => return Ok(found.manifest),
            Next::Read(blob, limit) => search.take(store.read(&blob.digest, limit).await?)?,
        }
    }
}
