//! Images that are mounted in containers (R-VOL-11).
//!
//! Each has a view of its files, a snapshot that the container's record names: garbage collection takes neither the view nor
//! the image's layers as long as there is the record, whatever becomes of the image's name. The OCI runtime binds the files
//! into the container from a path on the node, where they are mounted only while it makes the container:
//!
//! ```text
//! <run_dir>/images/<sandbox>+<container>/<number>        what is mounted in the container
//! <run_dir>/images/<sandbox>+<container>/<number>.all    the image that it is a part of
//! ```

use std::{io, os::fd::OwnedFd, path::PathBuf};

use containerd_client::services::v1::Container;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use stanchion_sdk::{
    layers::{self, children, unmount},
    runtime::{ContainerConfig, Error, ErrorKind, ImageMount, Result},
};

use crate::{
    Containerd,
    client::failed,
    names::{self, KEPT_SNAPSHOT, MOUNTED_IMAGE},
    rootfs::layers_of,
    unattended::Bundle,
};

/// What is mounted of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// The image, by reference; empty in what earlier versions noted.
    #[serde(default)]
    image: String,
    /// The key of the view that shows its files.
    view: String,
    /// The snapshot that holds them; empty for an image without any.
    layers: String,
    /// The part that is mounted; empty is all of it.
    sub_path: PathBuf,
}

/// The volumes of a container, in the order of their numbers, as its OCI configuration notes them.
pub(crate) fn note(volumes: &[Volume]) -> serde_json::Result<(String, String)> {
    Ok((names::VOLUMES.to_owned(), serde_json::to_string(volumes)?))
}

/// The labels of a container's record that keep the views of its volumes, and tell what they are of.
pub(crate) fn labels(volumes: &[Volume], snapshotter: &str) -> impl Iterator<Item = (String, String)> {
    volumes.iter().enumerate().flat_map(move |(number, volume)| {
        let kept = (format!("{KEPT_SNAPSHOT}{snapshotter}/image-{number}"), volume.view.clone());
        [kept, (format!("{MOUNTED_IMAGE}{number}"), volume.image.clone())]
    })
}

impl Containerd {
    /// The images that a container is to have mounted; their places on the node are filled in.
    pub(crate) async fn volumes(&self, container: &str, config: &mut ContainerConfig) -> Result<Vec<Volume>> {
        let home = self.home(config.sandbox.as_str(), container);
        let mut volumes = Vec::new();
        for mount in &mut config.mounts {
            let Some(image) = &mount.image else { continue };
            mount.source = home.join(volumes.len().to_string());
            volumes.push(self.volume(container, volumes.len(), image).await?);
        }
        Ok(volumes)
    }

    async fn volume(&self, container: &str, number: usize, image: &ImageMount) -> Result<Volume> {
        let ImageMount { reference, sub_path } = image;
        let layers = self.images.resolve(reference).await?.chain_id;
        if !sub_path.as_os_str().is_empty() {
            let path = sub_path.clone();
            let look = move |root: &OwnedFd| layers::open_in(root, &path, OFlags::PATH).map(drop);
            let tried = format!("looking for {} in image {reference}", sub_path.display());
            let found = self.look_into(&layers, &format!("{container}-look-{layers}"), &tried, look).await?;
            found.map_err(|error| Error::new(ErrorKind::Invalid, tried).caused_by(&error))?;
        }
        let view = format!("{container}-image-{number}-{layers}");
        Ok(Volume { image: reference.clone(), view, layers, sub_path: sub_path.clone() })
    }

    /// Has a container's volumes on the node while `make` makes it.
    pub(crate) async fn with_volumes<T>(&self, record: &Container, make: impl Future<Output = Result<T>>) -> Result<T> {
        let volumes = noted(record)?;
        if volumes.is_empty() {
            return make.await;
        }
        let made = match self.put(record, volumes).await {
            Ok(()) => make.await,
            Err(error) => Err(error),
        };
        // What stays goes with the container, or when the next agent comes.
        if let Err(error) = self.clear(record).await {
            tracing::warn!(container = record.id, error = error.chain(), "an image stays mounted on the node");
        }
        made
    }

    async fn put(&self, record: &Container, volumes: Vec<Volume>) -> Result<()> {
        let tried = format!("mounting the images of container {}", record.id);
        let mut all = Vec::new();
        for Volume { view, layers, sub_path, .. } in volumes {
            let mounts = self.view(&layers, &view).await.map_err(|status| {
                // Something of the image is gone: the next look-up starts from the store.
                self.images.forget_resolved();
                failed(tried.clone(), &status)
            })?;
            all.push((mounts, sub_path));
        }
        let home = self.home_of(record);
        self.blocking(move |_| {
            let put = unmount(&home).and_then(|()| {
                let mut all = all.iter().enumerate();
                all.try_for_each(|(number, (mounts, sub_path))| {
                    layers_of(mounts)?.mount_part(sub_path, &home.join(number.to_string()))
                })
            });
            put.map_err(|error| Error::new(ErrorKind::Other, tried).caused_by(&error))
        })
        .await
    }

    /// Removes what a container has of images.
    pub(crate) async fn erase_volumes(&self, record: &Container) -> Result<()> {
        let kept = record.labels.iter().filter(|(label, _)| label.starts_with(KEPT_SNAPSHOT));
        let views: Vec<String> = kept.map(|(_, view)| view.clone()).collect();
        if !views.is_empty() {
            self.clear(record).await?;
        }
        for view in views {
            let removed = self.remove_view(&view).await;
            removed.map_err(|status| failed(format!("removing the images of container {}", record.id), &status))?;
        }
        Ok(())
    }

    async fn clear(&self, record: &Container) -> Result<()> {
        let (home, id) = (self.home_of(record), record.id.clone());
        self.blocking(move |_| {
            unmount(&home).map_err(|error| {
                Error::new(ErrorKind::Other, format!("unmounting the images of container {id}")).caused_by(&error)
            })
        })
        .await
    }

    /// Where volumes are on the node, by sandbox. Of sandboxes of ours that is what starts have left that were cut off, as
    /// long as none is under way.
    pub(crate) fn volumes_on_node(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let images = self.run_dir.join("images");
        let sandbox = |container: &str| container.split('+').next().unwrap_or_default().to_owned();
        let containers = children(&images)?;
        Ok(containers.into_iter().map(|container| (sandbox(&container), images.join(container))).collect())
    }

    fn home(&self, sandbox: &str, container: &str) -> PathBuf {
        // No id has the sign between them.
        self.run_dir.join("images").join(format!("{sandbox}+{container}"))
    }

    fn home_of(&self, record: &Container) -> PathBuf {
        self.home(record.labels.get(names::SANDBOX).map(String::as_str).unwrap_or_default(), &record.id)
    }
}

/// The volumes that a container's record notes.
fn noted(record: &Container) -> Result<Vec<Volume>> {
    if !record.labels.keys().any(|label| label.starts_with(KEPT_SNAPSHOT)) {
        return Ok(Vec::new());
    }
    let spec = record.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    let read = serde_json::from_slice(spec).and_then(|Bundle { annotations }| {
        serde_json::from_str(annotations.get(names::VOLUMES).map(String::as_str).unwrap_or_default())
    });
    read.map_err(|error| {
        let message = format!("reading which images container {} has mounted", record.id);
        Error::new(ErrorKind::Other, message).caused_by(&error)
    })
}
