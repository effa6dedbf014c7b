//! Record of the images that the agent owns: those that it has pulled or imported. It may remove only these (R-IMG-11),
//! and not images that the runtime had before, or that another user has brought since. The record is on disk, for the
//! agent's next start:
//!
//! ```text
//! <state_dir>/images/<backend>.json     by the runtime's directory of images: another directory is another runtime's
//! ```

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use stanchion_plan::time::Stamp;
use stanchion_runtime::{Image, ImageDigest, Runtime};
use stanchion_untrusted::{Links, make_directory, read};

use super::Images;
use crate::{blocking, files::whole, limits, reference::repository};

/// One name of an owned image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnedImage {
    /// Digest that the name stood for when it came.
    pub digest: ImageDigest,
    pub at: Stamp,
    /// Time of the first survey that found it unused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Stamp>,
    /// Archive that the image was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<PathBuf>,
}

/// Owned images, by full reference.
pub(crate) type OwnedImages = BTreeMap<String, OwnedImage>;
/// Owned images, by the directory of their store.
type Stores = BTreeMap<PathBuf, OwnedImages>;

/// The record of one backend.
#[derive(Debug)]
pub(crate) struct OwnedRecord {
    path: PathBuf,
    /// `None` until the file has been read.
    stores: Mutex<Option<Stores>>,
}

impl OwnedRecord {
    pub fn of(state_dir: &Path, backend: &str) -> Arc<Self> {
        let path = state_dir.join("images").join(format!("{backend}.json"));
        Arc::new(Self { path, stores: Mutex::default() })
    }

    /// Changes the record of a store's images, and writes it to disk.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        store: PathBuf,
        change: impl FnOnce(&mut OwnedImages) -> T + Send + 'static,
    ) -> T {
        let record = Arc::clone(self);
        blocking(move || record.change_now(store, change)).await
    }

    fn change_now<T>(&self, store: PathBuf, change: impl FnOnce(&mut OwnedImages) -> T) -> T {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let stores = stores.get_or_insert_with(|| self.read());
        let images = stores.entry(store).or_default();
        let before = images.clone();
        let changed = change(images);
        if *images != before
            && let Err(error) = self.write(stores)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot write the record of pulled and imported images; some may never be removed as unused");
        }
        changed
    }

    /// Reads the record. One that cannot be read names no image, so that none is removed.
    fn read(&self) -> Stores {
        let read = match read(&self.path, Links::Refuse, limits::OWN_FILE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Stores::default(),
            read => read.and_then(|bytes| Ok(serde_json::from_slice(&bytes)?)),
        };
        read.unwrap_or_else(|error: io::Error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot read the record of pulled and imported images; none of them is removed as unused");
            Stores::default()
        })
    }

    fn write(&self, stores: &Stores) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        make_directory(directory)?;
        whole::write(&self.path, &serde_json::to_vec(stores)?)
    }
}

/// Images that a runtime had before a pull or an import.
pub(crate) struct Before(BTreeMap<String, ImageDigest>);

impl Images {
    /// Lists the runtime's images; `None` if that fails: then the agent claims none.
    pub async fn before<R: Runtime>(&self, runtime: &R) -> Option<Before> {
        let images = runtime.list_images().await.ok()?;
        Some(Before(images.into_iter().map(|image| (image.reference, image.digest)).collect()))
    }

    /// Records images from an archive or a registry as the agent's, if their names were not there `before`, or were the
    /// agent's.
    pub async fn claim<R: Runtime>(
        &self,
        runtime: &R,
        before: Before,
        mut fetched: Vec<Image>,
        archive: Option<PathBuf>,
    ) {
        if archive.is_none() {
            // A pull that fetched nothing does not change the owner of an image.
            fetched.retain(|image| before.0.get(&image.reference) != Some(&image.digest));
        }
        if fetched.is_empty() {
            return;
        }
        let found = match runtime.image_store().await {
            Ok(store) => runtime.list_images().await.map(|listed| (store.path, listed)),
            Err(error) => Err(error),
        };
        let (store, listed) = match found {
            Ok(found) => found,
            Err(error) => return tracing::debug!(error = error.chain(), "what was brought is not known to be ours"),
        };
        let now = self.clock.stamp();
        let new = listed.into_iter().filter(move |listed| fetched.iter().any(|image| is_name_of(listed, image)));
        let claim = move |known: &mut OwnedImages| {
            for Image { reference, digest, .. } in new {
                let last = known.get(&reference).filter(|it| before.0.get(&reference) == Some(&it.digest));
                if last.is_none() && before.0.contains_key(&reference) {
                    known.remove(&reference);
                    continue;
                }
                let same = last.filter(|it| it.digest == digest);
                let at = same.map_or(now, |it| it.at);
                let archive = archive.clone().or_else(|| same?.archive.clone());
                let unused_since = same.and_then(|it| it.unused_since);
                known.insert(reference, OwnedImage { digest, at, unused_since, archive });
            }
        };
        self.record.change(store, claim).await;
    }
}

/// Returns whether `listed` has the name that an image was fetched by, or the name by digest that some runtimes add.
fn is_name_of(listed: &Image, image: &Image) -> bool {
    let is_digest = || listed.reference.contains('@') && repository(&listed.reference) == repository(&image.reference);
    listed.digest == image.digest && (listed.reference == image.reference || is_digest())
}
