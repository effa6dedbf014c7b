//! Preload directory: every backend gets the images of the archives in it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use stanchion_board::Subject;
use stanchion_runtime::{ImportImages, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{node::BackendSlot, shared::Shared};

/// Interval of reads of the directory. An archive is complete if its size and time are the same in two reads.
const PERIOD: Duration = Duration::from_secs(2);
/// Wait before a failed import is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Size and modification time of an archive.
type FileVersion = (u64, SystemTime);

/// Imports by backend and archive. Workers share them, and report images that are missing.
#[derive(Debug, Default)]
pub(crate) struct Imports(Mutex<HashMap<(String, PathBuf), Import>>);

/// Import of an archive into a backend.
#[derive(Debug)]
struct Import {
    archive: FileVersion,
    /// References of the imported images.
    references: Vec<String>,
    /// Time of the next try, if the import failed.
    retry: Option<std::time::Instant>,
}

impl Imports {
    /// Forgets the imports of a missing image, so that they are repeated: somebody may have removed the unused image.
    pub fn miss(&self, backend: &str, reference: &str) {
        self.lock().retain(|(of, _), import| of != backend || !import.references.iter().any(|it| it == reference));
    }

    fn is_due(&self, key: &(String, PathBuf), archive: FileVersion) -> bool {
        match self.lock().get(key) {
            Some(import) if import.archive == archive => import.retry.is_some_and(|at| at <= crate::clock::instant()),
            _ => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, PathBuf), Import>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Imports archives into one backend, given by its index, until `shutdown`. Each backend has its own task, so that one
/// that hangs delays no other (I8).
pub(crate) async fn run<R: Runtime>(
    shared: Arc<Shared<R>>,
    index: usize,
    directory: PathBuf,
    shutdown: CancellationToken,
) {
    let mut preload = Preload { shared, index, directory, last: HashMap::new() };
    loop {
        if shutdown.run_until_cancelled(preload.read()).await.is_none() {
            return;
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

struct Preload<R> {
    shared: Arc<Shared<R>>,
    /// Index of the backend.
    index: usize,
    directory: PathBuf,
    last: HashMap<PathBuf, FileVersion>,
}

impl<R: Runtime> Preload<R> {
    async fn read(&mut self) {
        let found = archives(&self.directory);
        let settled: Vec<_> = found
            .iter()
            .filter(|(path, version)| self.last.get(*path) == Some(version) || is_old(version))
            .map(|(path, version)| (path.clone(), *version))
            .collect();
        self.last = found;
        let shared = Arc::clone(&self.shared);
        let Some(slot) = shared.slots.get(self.index).filter(|slot| slot.observer.latest().is_current()) else {
            return;
        };
        for (path, version) in &settled {
            let key = (slot.backend.name.clone(), path.clone());
            let is_due = shared.imports.is_due(&key, *version);
            if let Some(runtime) = slot.backend.runtime().filter(|_| is_due) {
                let imported = self.import(slot, &*runtime, path).await;
                let is_new = imported.is_some();
                let retry = (!is_new).then(|| crate::clock::instant() + RETRY);
                let import = Import { archive: *version, references: imported.unwrap_or_default(), retry };
                shared.imports.lock().insert(key, import);
                if is_new {
                    shared.images_changed.send_modify(|version| *version += 1);
                }
            }
        }
    }

    /// Imports an archive; returns the names of its images.
    async fn import(&self, slot: &BackendSlot<R>, runtime: &R, path: &Path) -> Option<Vec<String>> {
        let backend = &slot.backend.name;
        let subject = Subject::manifest(&path.display().to_string());
        let before = slot.images.before(runtime).await;
        match runtime.import_images(ImportImages { path: path.to_owned() }).await {
            Ok(images) => {
                let names: Vec<_> = images.iter().map(|image| image.reference.clone()).collect();
                let message = format!("Imported {} into {backend}", names.join(", "));
                self.shared.events.normal(&subject, "Imported", message);
                if let Some(before) = before {
                    slot.images.claim(runtime, before, images, Some(path.to_owned())).await;
                }
                Some(names)
            }
            Err(error) => {
                let message = format!("Cannot import {} into {backend}: {}", path.display(), error.chain());
                self.shared.events.warning(&subject, "ImportFailed", message);
                None
            }
        }
    }
}

/// Returns whether the last write of a file is long enough ago for the file to be complete. Then a start of the agent
/// need not wait for a second read.
fn is_old(version: &FileVersion) -> bool {
    version.1.elapsed().is_ok_and(|age| age > Duration::from_secs(10))
}

fn archives(directory: &Path) -> HashMap<PathBuf, FileVersion> {
    // If the directory does not exist, there are no archives.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let version = |entry: fs::DirEntry| {
        let file = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((entry.path(), (file.len(), file.modified().ok()?)))
    };
    entries.filter(|entry| !is_hidden(entry)).filter_map(version).collect()
}
