//! The fake's registry and image store.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{FakeRuntime, Shared, lock, state::State};
use crate::{
    ContainerConfig, Error, ErrorKind, Image, ImageDigest, ImageMount, ImageStore, ImportImages, Progress, PullImage,
    PullProgress, RegistryAuth, Result, UnusedImage,
};

/// Published and present images.
#[derive(Default)]
pub(super) struct Images {
    /// Present images, by reference.
    pub(super) present: BTreeMap<String, Image>,
    /// `USER` of the images that have one, by reference.
    pub(super) users: BTreeMap<String, String>,
    pub(super) stop_signals: BTreeMap<String, String>,
    /// Disk of the images.
    disk: Disk,
    /// References of images in use by containers that are not Stanchion's.
    used_by_others: BTreeSet<String>,
    registry: BTreeMap<String, Published>,
    archives: BTreeMap<PathBuf, Vec<Image>>,
    /// Number of images made so far; it gives each its own digest.
    made: u64,
}

/// Size of the disk, and other data on it, bytes.
struct Disk {
    capacity: u64,
    others: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self { capacity: 1 << 40, others: 0 }
    }
}

#[derive(Clone)]
struct Published {
    image: Image,
    auth: Option<RegistryAuth>,
    takes: Duration,
}

/// Files in every fake image mount; each contains the image's reference.
const FILES: [&str; 2] = ["bin/sh", "bin/true"];

impl Images {
    /// Checks that an image mount is possible.
    pub(super) fn check(&self, mount: &ImageMount) -> Result<()> {
        let ImageMount { reference, sub_path } = mount;
        if !self.present.contains_key(reference) {
            return Err(Error::new(ErrorKind::NotFound, format!("image {reference} is not present; pull it first")));
        }
        match FILES.iter().any(|file| Path::new(file).starts_with(sub_path)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Invalid, format!("image {reference} has no {}", sub_path.display()))),
        }
    }

    /// Returns the content of the file at `below` in an image mount.
    pub(super) fn file(mount: &ImageMount, below: &Path) -> Option<Vec<u8>> {
        let path: PathBuf = mount.sub_path.components().chain(below.components()).collect();
        FILES.iter().any(|file| path == Path::new(file)).then(|| format!("{}\n", mount.reference).into_bytes())
    }

    fn make(&mut self, reference: &str, size: u64) -> Image {
        self.made += 1;
        Image { reference: reference.to_owned(), digest: ImageDigest(format!("sha256:{:064x}", self.made)), size }
    }
}

impl State {
    /// Returns the image store. Images of one digest count once.
    pub(super) fn image_store(&self) -> ImageStore {
        let Images { present, disk, used_by_others, .. } = &self.images;
        let sizes: BTreeMap<_, _> = present.values().map(|image| (image.digest.as_str(), image.size)).collect();
        let used = disk.others + sizes.values().sum::<u64>();
        let mounted = |config: &ContainerConfig| {
            let images = config.mounts.iter().filter_map(|mount| mount.image.as_ref());
            images.map(|image| image.reference.clone()).collect::<Vec<_>>()
        };
        let of = self.containers.values().map(|container| {
            let digest = container.info.image_digest.iter().map(ToString::to_string);
            digest.chain(mounted(&container.config)).chain([container.config.image.clone()]).collect::<Vec<_>>()
        });
        ImageStore {
            path: "/fake/images".into(),
            capacity: disk.capacity,
            available: disk.capacity.saturating_sub(used),
            in_use: of.flatten().chain(used_by_others.iter().cloned()).collect(),
        }
    }

    pub(super) fn remove_unused_image(&mut self, image: &UnusedImage) -> Result<()> {
        let UnusedImage { reference, digest } = image;
        let kept = |why: &str| Err(Error::new(ErrorKind::Conflict, format!("remove image {reference}: {why}")));
        match self.images.present.get(reference) {
            None => return Ok(()),
            Some(present) if present.digest != *digest => return kept("it is another image by now"),
            Some(_) => {}
        }
        if self.image_store().in_use.iter().any(|used| used == reference || used == digest.as_str()) {
            return kept("it is in use");
        }
        self.images.present.remove(reference);
        Ok(())
    }
}

impl Shared {
    pub(super) async fn pull(&self, request: PullImage, progress: Progress) -> Result<Image> {
        let PullImage { reference, auth } = request;
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            return Err(Error::new(ErrorKind::Invalid, format!("pull {reference:?}: that is no image reference")));
        }
        let found = self.read(|state| state.images.registry.get(&reference).cloned());
        let Some(Published { image, auth: wanted, takes }) = found else {
            return Err(Error::new(ErrorKind::NotFound, format!("pull {reference}: no registry has it")));
        };
        if wanted.is_some() && wanted != auth {
            let why = if auth.is_some() { "these credentials are refused" } else { "it wants credentials" };
            return Err(Error::new(ErrorKind::Permission, format!("pull {reference}: {why}")));
        }
        for quarter in 0..=4 {
            if quarter > 0 && !takes.is_zero() {
                tokio::time::sleep(takes / 4).await;
            }
            progress.report(PullProgress {
                received: image.size / 4 * quarter + if quarter == 4 { image.size % 4 } else { 0 },
                total: image.size,
                layers_done: u32::from(quarter == 4),
                layers: 1,
            });
        }
        self.change(|state, _| state.images.present.insert(reference, image.clone()));
        Ok(image)
    }

    pub(super) fn import(&self, request: &ImportImages) -> Result<Vec<Image>> {
        let path = request.path.display();
        self.change(|state, _| {
            let Some(images) = state.images.archives.get(&request.path) else {
                return Err(Error::new(ErrorKind::NotFound, format!("import {path}: there is no such archive")));
            };
            for image in images {
                state.images.present.insert(image.reference.clone(), image.clone());
            }
            Ok(images.clone())
        })
    }
}

impl FakeRuntime {
    /// Puts an image into the fake's registry, so that a pull works. A second call gives it another digest.
    pub fn publish(&self, reference: &str, size: u64) -> Image {
        self.publish_as(reference, size, None, Duration::ZERO)
    }

    /// Publishes as [`publish`](FakeRuntime::publish) does, with pulls that take this long and report every quarter.
    pub fn publish_slow(&self, reference: &str, size: u64, takes: Duration) -> Image {
        self.publish_as(reference, size, None, takes)
    }

    /// Publishes as [`publish`](FakeRuntime::publish) does; a pull without these credentials fails with `Permission`.
    pub fn publish_private(&self, reference: &str, size: u64, auth: RegistryAuth) -> Image {
        self.publish_as(reference, size, Some(auth), Duration::ZERO)
    }

    /// Removes an image from the registry.
    pub fn unpublish(&self, reference: &str) {
        lock(&self.shared.state).images.registry.remove(reference);
    }

    /// Makes an image present without a pull.
    pub fn add_image(&self, reference: &str, size: u64) -> Image {
        self.shared.change(|state, _| {
            let image = state.images.make(reference, size);
            state.images.present.insert(reference.to_owned(), image.clone());
            image
        })
    }

    /// Sets the size of the images' disk, and the size of other data on it, bytes.
    pub fn set_disk(&self, capacity: u64, others: u64) {
        lock(&self.shared.state).images.disk = Disk { capacity, others };
    }

    /// Sets whether a container that is not Stanchion's uses this image.
    pub fn set_used_by_others(&self, reference: &str, used: bool) {
        let mut state = lock(&self.shared.state);
        match used {
            true => state.images.used_by_others.insert(reference.to_owned()),
            false => state.images.used_by_others.remove(reference),
        };
    }

    /// Returns the references of the present images.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        self.shared.read(|state| state.images.present.keys().cloned().collect())
    }

    /// Sets the `USER` of the image of this reference.
    pub fn image_user(&self, reference: &str, user: &str) {
        lock(&self.shared.state).images.users.insert(reference.to_owned(), user.to_owned());
    }

    /// Sets the `STOPSIGNAL` of the image of this reference.
    pub fn image_stop_signal(&self, reference: &str, signal: &str) {
        lock(&self.shared.state).images.stop_signals.insert(reference.to_owned(), signal.to_owned());
    }

    /// Makes `path` an archive of these images for `import_images`; the fake does not read the file itself.
    pub fn add_archive(&self, path: impl Into<PathBuf>, references: &[&str]) {
        let mut state = lock(&self.shared.state);
        let images = references.iter().map(|reference| state.images.make(reference, 4096)).collect();
        state.images.archives.insert(path.into(), images);
    }

    fn publish_as(&self, reference: &str, size: u64, auth: Option<RegistryAuth>, takes: Duration) -> Image {
        let mut state = lock(&self.shared.state);
        let image = state.images.make(reference, size);
        let published = Published { image: image.clone(), auth, takes };
        state.images.registry.insert(reference.to_owned(), published);
        image
    }
}
