//! Image volumes of containers (R-VOL-11).
//!
//! Docker itself has them since version 28, and lets programs in them run. Here Docker binds a directory, on which the
//! backend mounts the image's layers only while Docker creates and starts the container:
//!
//! ```text
//! <run_dir>/docker-images/<backend>/<container>/<number>        mounted in the container
//! <run_dir>/docker-images/<backend>/<container>/<number>.all    the whole image of a `subPath`
//! ```
//!
//! A holder makes Docker keep the layers, whatever becomes of the image's name: a container of that image that never
//! runs. It goes with the container that has the image mounted, or with the sandbox.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ImageInspect};
use serde::{Deserialize, Serialize};
use stanchion_sdk::{
    blocking,
    layers::{Layers, children, unmount},
    runtime::{ContainerConfig, Error, ErrorKind, ImageMount, Result},
};

use crate::{
    Docker, LAYERED,
    container::Pod,
    names,
    sandbox::{created_twice, host_config},
};

/// Image volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Reference of the image.
    reference: String,
    /// Id of the image.
    image: String,
    /// Id of the container that keeps its layers.
    holder: String,
    /// Part that is mounted; empty for all of it.
    sub_path: PathBuf,
}

/// Image volumes of a container.
pub(crate) struct Volumes {
    /// Name of the container.
    container: String,
    /// Volumes, in the order of their numbers.
    pub all: Vec<Volume>,
}

impl Docker {
    /// Creates the holders of a container's image volumes, and sets the sources of their mounts.
    pub(crate) async fn volumes(&self, container: &str, pod: &Pod, config: &mut ContainerConfig) -> Result<Volumes> {
        let mut volumes = Volumes { container: container.to_owned(), all: Vec::new() };
        let mounts: Vec<_> = config.mounts.iter().filter_map(|mount| mount.image.clone()).collect();
        if mounts.is_empty() {
            return Ok(volumes);
        }
        if self.client.find(container).await?.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("creating container {container}")));
        }
        for (number, mount) in mounts.into_iter().enumerate() {
            match self.hold(container, number, mount, pod, config).await {
                Ok(volume) => volumes.all.push(volume),
                Err(error) => return Err(self.give_up(&volumes, error).await),
            }
        }
        let home = self.home(container);
        for (number, mount) in config.mounts.iter_mut().filter(|mount| mount.image.is_some()).enumerate() {
            mount.source = home.join(number.to_string());
            // It is mounted read-only already; Docker's own option would let programs in it run.
            mount.read_only = false;
        }
        Ok(volumes)
    }

    async fn hold(
        &self,
        container: &str,
        number: usize,
        mount: ImageMount,
        pod: &Pod,
        config: &ContainerConfig,
    ) -> Result<Volume> {
        let tried = || format!("holding image {} for container {container}", mount.reference);
        let image = self.look_up_image(&mount.reference).await?.id.unwrap_or_default();
        let name = format!("{container}-image-{number}");
        // A holder from an earlier, interrupted creation holds nothing: there is no container.
        if let Some(left) = self.client.find(&name).await?.and_then(|found| found.id) {
            self.erase(&left).await?;
        }
        let ours = [
            (names::KIND, names::HOLDER.to_owned()),
            (names::OWNER, self.config.namespace.clone()),
            (names::SANDBOX, config.sandbox.0.clone()),
            (names::SANDBOX_ATTEMPT, pod.attempt.clone()),
        ];
        let body = ContainerCreateBody {
            image: Some(image.clone()),
            // It never runs, but Docker needs a command.
            entrypoint: Some(vec!["never".to_owned()]),
            labels: Some(names::labels(&config.labels, ours)),
            network_disabled: Some(true),
            host_config: Some(host_config()),
            ..ContainerCreateBody::default()
        };
        let holder = self.create(&name, body).await.map_err(|error| created_twice(tried(), &error))?;
        Ok(Volume { reference: mount.reference, image, holder, sub_path: mount.sub_path })
    }

    /// Mounts a container's volumes on the node while `make` creates or starts it.
    pub(crate) async fn with_volumes<T>(&self, volumes: &Volumes, make: impl Future<Output = Result<T>>) -> Result<T> {
        if volumes.all.is_empty() {
            return make.await;
        }
        let made = match self.put(volumes).await {
            Ok(()) => make.await,
            Err(error) => Err(error),
        };
        // Remaining mounts go with the container.
        if let Err(error) = self.clear(&volumes.container).await {
            tracing::warn!(container = volumes.container, error = error.chain(), "an image stays mounted on the node");
        }
        made
    }

    async fn put(&self, volumes: &Volumes) -> Result<()> {
        self.clear(&volumes.container).await?;
        let home = self.home(&volumes.container);
        for (number, volume) in volumes.all.iter().enumerate() {
            let layers = layers(&volume.reference, &self.look_up_image(&volume.image).await?)?;
            let (volume, place) = (volume.clone(), home.join(number.to_string()));
            blocking(move || {
                layers.mount_part(&volume.sub_path, &place).map_err(|error| {
                    let absent = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
                    let kind = if absent.contains(&error.kind()) { ErrorKind::Invalid } else { ErrorKind::Other };
                    let tried = format!("looking for {} in image {}", volume.sub_path.display(), volume.reference);
                    Error::new(kind, tried).caused_by(&error)
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Releases the volumes of a container that could not be created.
    pub(crate) async fn give_up(&self, volumes: &Volumes, error: Error) -> Error {
        if let Err(left) = self.release(volumes).await {
            let container = &volumes.container;
            tracing::warn!(container, error = left.chain(), "an image stays held until the sandbox is removed");
        }
        error
    }

    /// Unmounts a container's image volumes, and removes their holders.
    pub(crate) async fn release(&self, volumes: &Volumes) -> Result<()> {
        if volumes.all.is_empty() {
            return Ok(());
        }
        self.clear(&volumes.container).await?;
        for volume in &volumes.all {
            self.erase(&volume.holder).await?;
        }
        Ok(())
    }

    async fn clear(&self, container: &str) -> Result<()> {
        let (home, tried) = (self.home(container), format!("unmounting the images of container {container}"));
        blocking(move || unmount(&home).map_err(|error| Error::new(ErrorKind::Other, tried).caused_by(&error))).await
    }

    fn home(&self, container: &str) -> PathBuf {
        self.images_on_node().join(container)
    }

    /// Returns the directory where this backend mounts images, and no other.
    fn images_on_node(&self) -> PathBuf {
        let socket = self.config.socket.to_string_lossy();
        let namespace = &self.config.namespace;
        self.run_dir.join("docker-images").join(names::id(namespace, &[&socket, namespace], 0))
    }

    /// Unmounts what interrupted starts have left. No start may be under way.
    pub(crate) async fn sweep_volumes(&self) {
        let images = self.images_on_node();
        let sweep = move || {
            let failed = |error: io::Error| Error::new(ErrorKind::Other, "clearing what is mounted").caused_by(&error);
            let homes = children(&images).map_err(failed)?;
            homes.iter().try_for_each(|home| unmount(&images.join(home)).map_err(failed))
        };
        if let Err(error) = blocking(sweep).await {
            tracing::warn!(error = error.chain(), "an image that an earlier run mounted stays mounted");
        }
    }
}

/// Returns the layers of an image.
pub(crate) fn layers(reference: &str, found: &ImageInspect) -> Result<Layers> {
    let data = found.graph_driver.as_ref().filter(|driver| driver.name == LAYERED).map(|driver| &driver.data);
    let directories = ["UpperDir", "LowerDir"].iter().filter_map(|name| data?.get(*name));
    let directories: Vec<_> = directories.flat_map(|paths| paths.split(':')).map(str::to_owned).collect();
    if directories.is_empty() {
        return Err(Error::unsupported(format!("looking for the files of image {reference}")));
    }
    Ok(Layers::overlay(&directories))
}

impl Volumes {
    /// Reads the volumes that a container's labels note.
    pub fn noted(found: &ContainerInspectResponse) -> Result<Self> {
        let container = found.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned();
        let all = found.config.as_ref().and_then(|config| noted(config.labels.as_ref()?)).transpose();
        let all = all.map_err(|error| {
            let tried = format!("reading which images container {container} has mounted");
            Error::new(ErrorKind::Other, tried).caused_by(&error)
        })?;
        Ok(Self { container, all: all.unwrap_or_default() })
    }

    /// Returns the label that notes the volumes.
    pub fn note(&self) -> Option<(&'static str, String)> {
        let text = serde_json::to_string(&self.all).ok().filter(|_| !self.all.is_empty())?;
        Some((names::IMAGES, text))
    }
}

/// Returns the volumes that a container's labels note, if they do.
fn noted(labels: &HashMap<String, String>) -> Option<serde_json::Result<Vec<Volume>>> {
    labels.get(names::IMAGES).map(|noted| serde_json::from_str(noted))
}

/// Returns whether all holders of a container's volumes exist; if not, somebody has removed one, and maybe the files.
pub(crate) fn are_held(labels: &HashMap<String, String>, holders: &HashSet<String>) -> bool {
    let volumes = noted(labels).and_then(std::result::Result::ok).unwrap_or_default();
    volumes.iter().all(|volume| holders.contains(&volume.holder))
}
