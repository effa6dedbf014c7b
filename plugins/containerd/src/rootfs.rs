//! Looks into the files of images: to find names of users, and what is to be mounted of one.

use std::{io, os::fd::OwnedFd, sync::Arc};

use containerd_client::{
    services::v1::snapshots::{MountsRequest, RemoveSnapshotRequest, ViewSnapshotRequest},
    tonic::{Code, Status},
    types::Mount,
};
use stanchion_sdk::{
    layers::{self, Layers},
    runtime::{Error, ErrorKind, Result},
    users::Tables,
};

use crate::{
    Containerd, changes,
    client::{failed, is_gone},
    image::Resolved,
};

impl Containerd {
    /// The image's tables of users.
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

    /// Has `look` see the files of an image, by the root of them. The view that shows them is named by nothing that lasts:
    /// given up in the middle, it goes with containerd's next garbage collection.
    pub(crate) async fn look_into<T: Send + 'static>(
        &self,
        layers: &str,
        key: &str,
        tried: &str,
        look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> Result<io::Result<T>> {
        let mounts = self.view(layers, key).await.map_err(|status| failed(tried, &status))?;
        let seen = tokio::task::spawn_blocking(move || layers_of(&mounts)?.look(look)).await;
        if let Err(status) = self.remove_view(key).await {
            tracing::debug!(key, error = status.message(), "a view of an image is left to garbage collection");
        }
        seen.map_err(|panic| changes::crashed(&panic))
    }

    /// How the files of an image are mounted for reading: its view of that key, made if there is none.
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

    /// Removes a view. Nothing happens to what is gone.
    pub(crate) async fn remove_view(&self, key: &str) -> std::result::Result<(), Status> {
        let request = RemoveSnapshotRequest { snapshotter: self.config.snapshotter.clone(), key: key.to_owned() };
        match self.client.snapshots().remove(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(status),
            _ => Ok(()),
        }
    }
}

/// A snapshot's mounts, of which there is one.
pub(crate) fn layers_of(mounts: &[Mount]) -> io::Result<Layers> {
    let [files] = mounts else {
        return Err(io::Error::other(format!("the snapshot has {} mounts, expected 1", mounts.len())));
    };
    Ok(Layers { kind: files.r#type.clone(), source: files.source.clone(), options: files.options.clone() })
}
