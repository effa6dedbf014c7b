//! Access to the files of images: to look up user names, and to check what is to be mounted.

use std::{io, os::fd::OwnedFd, sync::Arc};

use containerd_client::{
    services::v1::snapshots::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest},
    tonic::{Code, Status},
    types::Mount,
};
use stanchion_sdk::{
    blocking,
    layers::{self, Layers},
    runtime::{Error, ErrorKind, Result},
    users::Tables,
};

use crate::{
    Containerd,
    client::{failed, is_gone},
    image::Resolved,
};

impl Containerd {
    /// Returns the image's user tables.
    pub(crate) async fn tables(&self, container: &str, image: &Resolved) -> Result<Arc<Tables>> {
        if let Some(known) = &image.tables {
            return Ok(Arc::clone(known));
        }
        let tables = match image.chain_id.as_str() {
            "" => Tables::default(),
            layers => {
                let tried = format!("looking for users in the files of the image of container {container}");
                let failed = |error: io::Error| Error::new(ErrorKind::Other, tried.clone()).caused_by(&error);
                self.look_into(layers, &format!("{container}-users"), &tried, layers::tables).await?.map_err(failed)?
            }
        };
        let tables = Arc::new(tables);
        self.images.keep_tables(image, &tables);
        Ok(tables)
    }

    /// Runs `look` on the root directory of an image's files. No record names the view that shows them: if this is
    /// cancelled, containerd's next garbage collection removes it.
    pub(crate) async fn look_into<T: Send + 'static>(
        &self,
        layers: &str,
        key: &str,
        tried: &str,
        look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>> {
        let mounts = self.view(layers, key).await.map_err(|status| failed(tried, &status))?;
        let seen = blocking(move || layers_of(&mounts)?.look(look)).await;
        if let Err(status) = self.remove_view(key).await {
            tracing::debug!(key, error = status.message(), "a view of an image is left to garbage collection");
        }
        Ok(seen)
    }

    /// Returns the mounts for reading an image's files: the view `key`, made if there is none.
    pub(crate) async fn view(&self, layers: &str, key: &str) -> std::result::Result<Vec<Mount>, Status> {
        let (snapshotter, key) = (self.config.snapshotter.clone(), key.to_owned());
        let view = ViewSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            parent: layers.to_owned(),
            ..ViewSnapshotRequest::default()
        };
        let mut snapshots = self.client.snapshots();
        match snapshots.view(self.client.request(view)).await {
            Ok(view) => Ok(view.into_inner().mounts),
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter, key };
                snapshots.mounts(self.client.request(request)).await.map(|it| it.into_inner().mounts)
            }
            Err(status) => Err(status),
        }
    }

    /// Removes a view; succeeds if it is gone.
    pub(crate) async fn remove_view(&self, key: &str) -> std::result::Result<(), Status> {
        let request = RemoveSnapshotRequest { snapshotter: self.config.snapshotter.clone(), key: key.to_owned() };
        match self.client.snapshots().remove(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(status),
            _ => Ok(()),
        }
    }
}

/// Returns the single mount of a snapshot.
pub(crate) fn layers_of(mounts: &[Mount]) -> io::Result<Layers> {
    let [files] = mounts else {
        return Err(io::Error::other(format!("the snapshot has {} mounts, expected 1", mounts.len())));
    };
    Ok(Layers { kind: files.r#type.clone(), source: files.source.clone(), options: files.options.clone() })
}
