//! Volumes that are mounted on the node while the OCI runtime makes a container and binds them into it: images
//! (R-VOL-11), `VOLUME`s of the container's image, and for a pod with its own user namespace all volumes that its users
//! must own (R-SEC-14).
//!
//! An image volume is a view of the image's files, a snapshot that the container's record names: while the record
//! exists, garbage collection removes neither the view nor the image's layers, whatever becomes of the image's name.
//!
//! ```text
//! <run_dir>/images/<sandbox>+<container>/<number>           mounted in the container
//! <run_dir>/images/<sandbox>+<container>/<number>.all       the whole image of a `subPath`; the snapshot of a `VOLUME`
//! <run_dir>/images/<sandbox>+<container>/<number>.<layer>   a layer of the image, ID-mapped for the pod's users
//! <run_dir>/images/<sandbox>+<container>/root.<layer>       the same for a layer of the container's own image
//! ```
//!
//! # Layout
//! - This module: all volumes. [`declared`]: `VOLUME`s of an image.

mod declared;

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::chown},
    path::{Path, PathBuf},
};

use containerd_client::{services::v1::Container, types::Mount};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use stanchion_network::namespaces::{
    USERS,
    users::{self, Access},
};
use stanchion_sdk::{
    layers::{self, Layers, children, unmount},
    runtime::{ContainerConfig, Error, ErrorKind, IdRange, ImageMount, Mount as RuntimeMount, Result},
};
use stanchion_untrusted::{Links, open};

use crate::{
    Containerd,
    client::failed,
    image::Resolved,
    limits,
    names::{self, KEPT_SNAPSHOT, MOUNTED_IMAGE},
    rootfs::layers_of,
    unattended::Bundle,
};

/// Volume that is mounted in a container from a path on the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Volume {
    Image(Image),
    /// `VOLUME` of the container's own image.
    Declared {
        /// Path in the container, from the root.
        declared: PathBuf,
        /// Key of the snapshot that holds its files.
        snapshot: String,
    },
    /// Path of the node, mounted for the pod's users.
    Path {
        path: PathBuf,
        access: Access,
    },
}

/// Image volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Reference of the image; empty in records of earlier versions.
    #[serde(default)]
    image: String,
    /// Key of the view that shows its files.
    view: String,
    /// Snapshot of its files; empty for an image without any.
    layers: String,
    /// Part that is mounted; empty for all of it.
    sub_path: PathBuf,
}

/// Prefix of the names in labels that keep snapshots of declared volumes.
const DECLARED: &str = "volume-";

/// Returns the keys of the snapshots that hold what a container has written to its image's `VOLUME`s.
pub(crate) fn written(record: &Container) -> impl Iterator<Item = &String> {
    let is_declared = |label: &str| {
        let name = label.strip_prefix(KEPT_SNAPSHOT).and_then(|label| label.rsplit('/').next());
        name.is_some_and(|name| name.starts_with(DECLARED))
    };
    record.labels.iter().filter(move |(label, _)| is_declared(label)).map(|(_, snapshot)| snapshot)
}

/// Returns the annotation that notes the volumes of a container, in the order of their numbers.
pub(crate) fn note(volumes: &[Volume]) -> serde_json::Result<(String, String)> {
    Ok((names::VOLUMES.to_owned(), serde_json::to_string(volumes)?))
}

/// Returns the labels of a container's record that keep its views and snapshots, and name its images.
pub(crate) fn labels(volumes: &[Volume], snapshotter: &str) -> impl Iterator<Item = (String, String)> {
    volumes.iter().enumerate().flat_map(move |(number, volume)| match volume {
        Volume::Path { .. } => Vec::new(),
        Volume::Declared { snapshot, .. } => {
            vec![(format!("{KEPT_SNAPSHOT}{snapshotter}/{DECLARED}{number}"), snapshot.clone())]
        }
        Volume::Image(image) => {
            let kept = (format!("{KEPT_SNAPSHOT}{snapshotter}/image-{number}"), image.view.clone());
            vec![kept, (format!("{MOUNTED_IMAGE}{number}"), image.image.clone())]
        }
    })
}

impl Containerd {
    /// Returns the container's volumes: images, `VOLUME`s, and for a pod with its own users all mounts. Sets or adds
    /// their mounts in `config`.
    pub(crate) async fn volumes(
        &self,
        container: &str,
        config: &mut ContainerConfig,
        image: &Resolved,
        own_users: bool,
    ) -> Result<Vec<Volume>> {
        let home = self.home(config.sandbox.as_str(), container);
        let mut volumes = Vec::new();
        let places = declared::places(image, config);
        limits::VOLUMES.check_count(places.len()).map_err(|error| {
            let message = format!("image {} of container {container} declares {} volumes", config.image, places.len());
            Error::new(ErrorKind::Invalid, message).caused_by(&error)
        })?;
        for mount in &mut config.mounts {
            let volume = match &mount.image {
                Some(image) => Volume::Image(self.image_volume(container, volumes.len(), image).await?),
                None if own_users => {
                    let recursive = std::mem::take(&mut mount.recursive_read_only);
                    let access = Access::of(std::mem::take(&mut mount.read_only), recursive);
                    Volume::Path { path: mount.source.clone(), access }
                }
                None => continue,
            };
            mount.source = home.join(volumes.len().to_string());
            volumes.push(volume);
        }
        for declared in places {
            config.mounts.push(RuntimeMount::new(home.join(volumes.len().to_string()), &declared));
            volumes.push(Volume::Declared { declared, snapshot: format!("{container}-volume-{}", volumes.len()) });
        }
        // Parents before children; the order of equals counts.
        config.mounts.sort_by_key(|mount| mount.destination.components().count());
        Ok(volumes)
    }

    async fn image_volume(&self, container: &str, number: usize, image: &ImageMount) -> Result<Image> {
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
        Ok(Image { image: reference.clone(), view, layers, sub_path: sub_path.clone() })
    }

    /// Creates the task of a container while its files and volumes are mounted on the node.
    pub(crate) async fn create_mounted(&self, record: &Container, files: Vec<Mount>) -> Result<u32> {
        let (volumes, users) = (noted(record)?, names::noted_users(record.labels.get(names::USERS)));
        if volumes.is_empty() && users.is_none() {
            return self.create_task(record, files).await;
        }
        let made = match self.put(record, volumes, files, users).await {
            Ok(files) => self.create_task(record, files).await,
            Err(error) => Err(error),
        };
        // Remaining mounts go with the container, or at the next start of the agent.
        if let Err(error) = self.clear(record).await {
            tracing::warn!(container = record.id, error = error.chain(), "a volume stays mounted on the node");
        }
        made
    }

    /// Mounts the volumes. Returns the container's own files as the pod's users must see them.
    async fn put(
        &self,
        record: &Container,
        volumes: Vec<Volume>,
        files: Vec<Mount>,
        users: Option<IdRange>,
    ) -> Result<Vec<Mount>> {
        let tried = format!("mounting the volumes of container {}", record.id);
        let mut all = Vec::new();
        for volume in volumes {
            all.push(match volume {
                Volume::Path { path, access } => Files::Path(path, access),
                Volume::Declared { declared, snapshot } => {
                    let mounts = self.writable(&snapshot).await.map_err(|status| failed(tried.clone(), &status))?;
                    Files::Declared { mounts, declared }
                }
                Volume::Image(Image { view, layers, sub_path, .. }) => {
                    let mounts = self.view(&layers, &view).await.map_err(|status| {
                        // Part of the image is gone: the next look-up reads the store again.
                        self.images.forget_resolved();
                        failed(tried.clone(), &status)
                    })?;
                    Files::Image { mounts, sub_path }
                }
            });
        }
        let home = self.home_of(record);
        let namespace = self.namespaces(sandbox_of(record)).path(USERS);
        self.blocking(move |_| {
            let put = || {
                unmount(&home)?;
                let users =
                    users.map(|users| Ok::<_, io::Error>((users, open(&namespace, Links::Follow)?))).transpose()?;
                let place = Place { home: &home, users: users.as_ref() };
                for (number, volume) in all.iter().enumerate() {
                    place.put(number, volume, &files)?;
                }
                place.own_files(files)
            };
            put().map_err(|error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error))
        })
        .await
    }

    /// Removes a container's views of images, and what it has written to its image's `VOLUME`s.
    pub(crate) async fn erase_volumes(&self, record: &Container) -> Result<()> {
        let kept = record.labels.iter().filter(|(label, _)| label.starts_with(KEPT_SNAPSHOT));
        let views: Vec<String> = kept.map(|(_, view)| view.clone()).collect();
        if !views.is_empty() || record.labels.contains_key(names::USERS) {
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
                Error::new(ErrorKind::Other, format!("unmounting the volumes of container {id}")).caused_by(&error)
            })
        })
        .await
    }

    /// Lists the volumes on the node, by sandbox. Those of our sandboxes are left from interrupted starts, as long as
    /// no start is under way.
    pub(crate) fn volumes_on_node(&self) -> io::Result<Vec<(String, PathBuf)>> {
        let images = self.run_dir.join("images");
        let sandbox = |container: &str| container.split('+').next().unwrap_or_default().to_owned();
        let containers = children(&images)?;
        Ok(containers.into_iter().map(|container| (sandbox(&container), images.join(container))).collect())
    }

    fn home(&self, sandbox: &str, container: &str) -> PathBuf {
        // No id contains a `+`.
        self.run_dir.join("images").join(format!("{sandbox}+{container}"))
    }

    fn home_of(&self, record: &Container) -> PathBuf {
        self.home(sandbox_of(record), &record.id)
    }
}

/// Source of a volume.
enum Files {
    Path(PathBuf, Access),
    Declared { mounts: Vec<Mount>, declared: PathBuf },
    Image { mounts: Vec<Mount>, sub_path: PathBuf },
}

/// Directory on the node of a container's volumes.
struct Place<'a> {
    home: &'a Path,
    /// UIDs/GIDs of the pod on the node, and its user namespace.
    users: Option<&'a (IdRange, File)>,
}

impl Place<'_> {
    /// Mounts one volume. `own` are the container's own files.
    fn put(&self, number: usize, files: &Files, own: &[Mount]) -> io::Result<()> {
        let place = self.home.join(number.to_string());
        match (files, self.users) {
            (Files::Declared { mounts, declared }, users) => {
                let whole = self.home.join(format!("{number}.all"));
                layers_of(mounts)?.mount_writable(&whole)?;
                declared::fill(&layers_of(own)?, declared, &whole)?;
                match users {
                    Some((_, namespace)) => users::mount_for(namespace, &whole, &place, Access::Write),
                    None => Layers::overlay(&[whole.to_string_lossy().into_owned()]).mount_writable(&place),
                }
            }
            (Files::Path(path, access), Some((_, namespace))) => users::mount_for(namespace, path, &place, *access),
            (Files::Path(..), None) => Err(io::Error::other("its pod has no users of its own")),
            (Files::Image { mounts, sub_path }, _) => {
                self.layers(layers_of(mounts)?, &number.to_string())?.mount_part(sub_path, &place)
            }
        }
    }

    /// Returns an image's layers, or a container's own files, as the pod's users must see them.
    fn layers(&self, layers: Layers, name: &str) -> io::Result<Layers> {
        let Some((_, namespace)) = self.users else { return Ok(layers) };
        layers.from_others(|number, layer| {
            let place = self.home.join(format!("{name}.{number}"));
            users::mount_for(namespace, layer, &place, Access::Write).map(|()| place)
        })
    }

    /// Returns a container's own files, as the pod's users must see them.
    fn own_files(&self, files: Vec<Mount>) -> io::Result<Vec<Mount>> {
        let Some((users, _)) = self.users else { return Ok(files) };
        let Layers { kind, source, options } = self.layers(layers_of(&files)?, "root")?;
        // The container writes over its image's layers, with the pod's UIDs on the node.
        if let Some(written) = options.iter().find_map(|option| option.strip_prefix("upperdir=")) {
            chown(written, Some(users.first), Some(users.first))?;
        }
        Ok(vec![Mount { r#type: kind, source, options, ..Mount::default() }])
    }
}

fn sandbox_of(record: &Container) -> &str {
    record.labels.get(names::SANDBOX).map(String::as_str).unwrap_or_default()
}

/// Returns the volumes that a container's record notes.
fn noted(record: &Container) -> Result<Vec<Volume>> {
    let has_volumes = |label: &String| label == names::USERS || label.starts_with(KEPT_SNAPSHOT);
    if !record.labels.keys().any(has_volumes) {
        return Ok(Vec::new());
    }
    let spec = record.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
    let read = serde_json::from_slice(spec).and_then(|Bundle { annotations }| {
        annotations.get(names::VOLUMES).map_or(Ok(Vec::new()), |noted| serde_json::from_str(noted))
    });
    read.map_err(|error| {
        let message = format!("reading what container {} has mounted", record.id);
        Error::new(ErrorKind::Other, message).caused_by(&error)
    })
}
