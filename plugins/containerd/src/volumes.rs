//! What has to be mounted on the node for a container, while the OCI runtime makes it and binds it into the container:
//! images (R-VOL-11), what an image declares with `VOLUME`, and for users of a pod's own whatever they are to own (R-SEC-14).
//!
//! An image has a view of its files, a snapshot that the container's record names: garbage collection takes neither the view
//! nor the image's layers as long as there is the record, whatever becomes of the image's name.
//!
//! ```text
//! <run_dir>/images/<sandbox>+<container>/<number>           what is mounted in the container
//! <run_dir>/images/<sandbox>+<container>/<number>.all       the image that it is a part of, or that a snapshot is made of
//! <run_dir>/images/<sandbox>+<container>/<number>.<layer>   a layer of that, for the pod's users
//! <run_dir>/images/<sandbox>+<container>/root.<layer>       a layer of the container's own image, likewise
//! ```
//!
//! # Layout
//! - This: all of them. [`declared`]: what an image declares.

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
    namespaces::{
        USERS,
        users::{self, Access},
    },
    rootfs::layers_of,
    unattended::Bundle,
};

/// What is mounted in a container from a place on the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Volume {
    Image(Image),
    /// What the container's own image declares with `VOLUME`.
    Declared {
        /// Where, from the root.
        declared: PathBuf,
        /// The key of the snapshot that holds it.
        snapshot: String,
    },
    /// What is at a path of the node, for the pod's users.
    Path {
        path: PathBuf,
        access: Access,
    },
}

/// What is mounted of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Image {
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

/// What the names of labels that keep snapshots of declared volumes begin with.
const DECLARED: &str = "volume-";

/// The keys of the snapshots that hold what a container has written to volumes that its image declares.
pub(crate) fn written(record: &Container) -> impl Iterator<Item = &String> {
    let is_declared = |label: &str| {
        let name = label.strip_prefix(KEPT_SNAPSHOT).and_then(|label| label.rsplit('/').next());
        name.is_some_and(|name| name.starts_with(DECLARED))
    };
    record.labels.iter().filter(move |(label, _)| is_declared(label)).map(|(_, snapshot)| snapshot)
}

/// The volumes of a container, in the order of their numbers, as its OCI configuration notes them.
pub(crate) fn note(volumes: &[Volume]) -> serde_json::Result<(String, String)> {
    Ok((names::VOLUMES.to_owned(), serde_json::to_string(volumes)?))
}

/// The labels of a container's record that keep the views of its volumes, and tell what they are of.
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
    /// What a container is to have mounted from places on the node, which are filled in: images, and everything where the pod
    /// has users of its own.
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

    /// Makes the process of a container, with its files and its volumes on the node meanwhile.
    pub(crate) async fn create_mounted(&self, record: &Container, files: Vec<Mount>) -> Result<u32> {
        let (volumes, users) = (noted(record)?, users::noted(record.labels.get(names::USERS)));
        if volumes.is_empty() && users.is_none() {
            return self.create_task(record, files).await;
        }
        let made = match self.put(record, volumes, files, users).await {
            Ok(files) => self.create_task(record, files).await,
            Err(error) => Err(error),
        };
        // What stays goes with the container, or when the next agent comes.
        if let Err(error) = self.clear(record).await {
            tracing::warn!(container = record.id, error = error.chain(), "a volume stays mounted on the node");
        }
        made
    }

    /// The container's own files are answered, as the pod's users are to have them.
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
                        // Something of the image is gone: the next look-up starts from the store.
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

    /// Removes what a container has of images, and what it has written to volumes that its image declares.
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
        self.home(sandbox_of(record), &record.id)
    }
}

/// What a volume is made of.
enum Files {
    Path(PathBuf, Access),
    Declared { mounts: Vec<Mount>, declared: PathBuf },
    Image { mounts: Vec<Mount>, sub_path: PathBuf },
}

/// Where the volumes of a container are on the node.
struct Place<'a> {
    home: &'a Path,
    /// The pod's users on the node, and the namespace that says so.
    users: Option<&'a (IdRange, File)>,
}

impl Place<'_> {
    /// `own` are the container's own files.
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

    /// An image's layers, or a container's own files, as the pod's users are to have them.
    fn layers(&self, layers: Layers, name: &str) -> io::Result<Layers> {
        let Some((_, namespace)) = self.users else { return Ok(layers) };
        layers.from_others(|number, layer| {
            let place = self.home.join(format!("{name}.{number}"));
            users::mount_for(namespace, layer, &place, Access::Write).map(|()| place)
        })
    }

    /// A container's own files, as the pod's users are to have them.
    fn own_files(&self, files: Vec<Mount>) -> io::Result<Vec<Mount>> {
        let Some((users, _)) = self.users else { return Ok(files) };
        let Layers { kind, source, options } = self.layers(layers_of(&files)?, "root")?;
        // What the container writes lies over its image's layers, and has the pod's users on the node.
        if let Some(written) = options.iter().find_map(|option| option.strip_prefix("upperdir=")) {
            chown(written, Some(users.first), Some(users.first))?;
        }
        Ok(vec![Mount { r#type: kind, source, options, ..Mount::default() }])
    }
}

fn sandbox_of(record: &Container) -> &str {
    record.labels.get(names::SANDBOX).map(String::as_str).unwrap_or_default()
}

/// The volumes that a container's record notes.
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
