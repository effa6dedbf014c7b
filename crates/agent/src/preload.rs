//! The preload directory: image archives dropped there are imported into every backend.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use stanchion_runtime::{ImportImages, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{events::Subject, node::Home, worker::Shared};

/// How often the directory is read. An archive is imported once it has the same size and time at two readings.
const PERIOD: Duration = Duration::from_secs(2);
/// How long a failed import is left alone.
const RETRY: Duration = Duration::from_secs(60);

/// An archive as it was seen.
type Seen = (u64, SystemTime);

/// Imports until `shutdown`.
pub(crate) async fn run<R: Runtime>(shared: Arc<Shared<R>>, directory: PathBuf, shutdown: CancellationToken) {
    let mut preload = Preload { shared, directory, last: HashMap::new(), done: HashMap::new() };
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
    directory: PathBuf,
    last: HashMap<PathBuf, Seen>,
    /// What was imported where, and when a failed import may be tried again.
    done: HashMap<(String, PathBuf), (Seen, Option<tokio::time::Instant>)>,
}

impl<R: Runtime> Preload<R> {
    async fn read(&mut self) {
        let found = archives(&self.directory);
        let settled: Vec<_> = found
            .iter()
            .filter(|(path, seen)| self.last.get(*path) == Some(seen) || is_old(seen))
            .map(|(path, seen)| (path.clone(), *seen))
            .collect();
        self.last = found;
        let shared = Arc::clone(&self.shared);
        for home in shared.homes.iter().filter(|home| home.observer.latest().is_current()) {
            for (path, seen) in &settled {
                let key = (home.backend.name.clone(), path.clone());
                let is_due = match self.done.get(&key) {
                    Some((done, _)) if done != seen => true,
                    Some((_, retry)) => retry.is_some_and(|at| at <= tokio::time::Instant::now()),
                    None => true,
                };
                if let Some(runtime) = home.backend.runtime().filter(|_| is_due) {
                    let failed = !self.import(home, &*runtime, path).await;
                    self.done.insert(key, (*seen, failed.then(|| tokio::time::Instant::now() + RETRY)));
                }
            }
        }
    }

    /// Imports an archive. Whether that is done.
    async fn import(&self, home: &Home<R>, runtime: &R, path: &Path) -> bool {
        let backend = &home.backend.name;
        let subject = Subject::manifest(&path.display().to_string());
        let before = home.images.before(runtime).await;
        match runtime.import_images(ImportImages { path: path.to_owned() }).await {
            Ok(images) => {
                let names: Vec<_> = images.iter().map(|image| image.reference.as_str()).collect();
                let message = format!("Imported {} into {backend}", names.join(", "));
                self.shared.events.normal(&subject, "Imported", message);
                self.shared.images_changed.send_modify(|version| *version += 1);
                if let Some(before) = before {
                    home.images.claim(runtime, before, images, Some(path.to_owned())).await;
                }
                true
            }
            Err(error) => {
                let message = format!("Cannot import {} into {backend}: {}", path.display(), error.chain());
                self.shared.events.warning(&subject, "ImportFailed", message);
                false
            }
        }
    }
}

/// Whether a file was last written long enough ago to be complete, so that a start need not wait for a second look.
fn is_old(seen: &Seen) -> bool {
    seen.1.elapsed().is_ok_and(|age| age > Duration::from_secs(10))
}

fn archives(directory: &Path) -> HashMap<PathBuf, Seen> {
    // An absent directory holds no archives.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_hidden = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let seen = |entry: fs::DirEntry| {
        let file = fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file)?;
        Some((entry.path(), (file.len(), file.modified().ok()?)))
    };
    entries.filter(|entry| !is_hidden(entry)).filter_map(seen).collect()
}
