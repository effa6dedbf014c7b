//! Images from files: K3s's own directory of them, and archives that the agent has imported.
//!
//! K3s imports the files in `<data>/agent/images` into its own containerd namespace; images belong to one namespace, so
//! we import the same files into ours. Each containerd that pods may run on needs them: what one has, the other gets
//! too. This runs in the background, because a large archive or a registry that is away must not hold up the pods that
//! need neither.
//!
//! # Layout
//! - [`Archives`]: the files, and the one run at a time that imports them into a containerd. [`Files`]: a run's work.
//! - [`notes`]: the outcome of each file and line.

mod notes;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures_util::{TryStreamExt, future, stream};
use stanchion_sdk::{
    blocking, clock,
    limits::SHOWN,
    runtime::{Error, ErrorKind, ImportImages, Progress, PullImage, Result, Runtime},
};
use stanchion_untrusted::Links;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use crate::limits;
use notes::{Item, Notes};

/// Longest wait for a run, from its start. The agent gives up a list of images after 10 s.
const PATIENCE: Duration = Duration::from_secs(2);
/// Number of listed images pulled at the same time: one registry that does not answer holds up few others.
const PARALLEL: usize = 3;

/// Size and time of a file: it is imported again when they have changed.
type Seen = (u64, SystemTime);

/// Files with images, and the runs that import them. Clones share them; with the last one the runs end.
#[derive(Clone, Debug)]
pub struct Archives {
    files: Files,
    /// Latest run of each containerd. Not in [`Files`]: a run must not keep itself alive.
    runs: Arc<Mutex<HashMap<&'static str, Run>>>,
}

/// Run that ends when this is dropped.
#[derive(Debug)]
struct Run {
    begun: Instant,
    /// `false` once the run has only retries left.
    has_new: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Archives {
    /// Makes it for the files of K3s's directory.
    pub fn of(data: &Path) -> Self {
        let files = Files { directory: data.join("agent/images"), asked: Arc::default(), notes: Notes::default() };
        Self { files, runs: Arc::default() }
    }

    /// Notes that an archive was imported.
    pub fn note(&self, path: PathBuf) {
        self.files.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    /// Imports into a containerd what it lacks, and waits a moment for what is new. The run goes on after that, also
    /// when the call is cancelled.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn bring<R: Runtime + Clone>(&self, place: &'static str, containerd: &R) {
        let (begun, mut has_new) = self.run(place, containerd);
        // A run that is over has dropped its sender.
        drop(timeout_at(begun + PATIENCE, has_new.wait_for(|has_new| !has_new)).await);
    }

    /// Returns the run of a containerd that is under way, or starts one.
    fn run<R: Runtime + Clone>(&self, place: &'static str, containerd: &R) -> (Instant, watch::Receiver<bool>) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = runs.get(place).filter(|run| !run.task.is_finished()) {
            return (run.begun, run.has_new.clone());
        }
        let (tell, has_new) = watch::channel(true);
        let bringing = self.files.clone().bring(place, containerd.clone(), tell);
        #[allow(
            clippy::disallowed_methods,
            reason = "ends with the files, or with the backend; a call starts the next"
        )]
        let task = tokio::spawn(bringing).abort_handle();
        let begun = clock::instant();
        runs.insert(place, Run { begun, has_new: has_new.clone(), task });
        (begun, has_new)
    }
}

/// The files, and the outcome of each.
#[derive(Clone, Debug)]
struct Files {
    directory: PathBuf,
    /// Archives that the agent has asked for.
    asked: Arc<Mutex<BTreeSet<PathBuf>>>,
    notes: Notes,
}

impl Files {
    /// Imports all that is due into a containerd, archives one after another, and the images of lists beside them.
    async fn bring<R: Runtime + Clone>(self, place: &'static str, containerd: R, has_new: watch::Sender<bool>) {
        let files = self.clone();
        let due = blocking(move || files.due(place)).await;
        has_new.send_replace(due.iter().any(|item| self.notes.is_new(item)));
        let (lines, archives): (Vec<_>, Vec<_>) = due.into_iter().partition(|item| item.line.is_some());
        let one = |item| {
            let (files, containerd) = (self.clone(), containerd.clone());
            async move { files.bring_one(item, &containerd).await }
        };
        let archives = stream::iter(archives.into_iter().map(Ok)).try_for_each_concurrent(1, one);
        let lines = stream::iter(lines.into_iter().map(Ok)).try_for_each_concurrent(PARALLEL, one);
        if let Err(error) = future::try_join(archives, lines).await {
            tracing::debug!(place, error = error.chain(), "images in files are left until the containerd answers");
        }
    }

    /// Imports one archive or image into a containerd, and notes the outcome. Fails if the containerd does not answer,
    /// which says nothing against a file or a registry.
    async fn bring_one<R: Runtime>(&self, item: Item, containerd: &R) -> Result<()> {
        let Item { place, path, line, .. } = &item;
        let (file, image) = (path.display(), line.as_deref().map(|line| SHOWN.cut(line)));
        let image = image.as_deref();
        let brought = match line {
            Some(reference) => pull(containerd, reference).await,
            None => containerd.import_images(ImportImages { path: path.clone() }).await.map(|images| images.len()),
        };
        match brought {
            Ok(images) => {
                tracing::info!(%file, image, images, place, "imported");
                self.notes.done(item);
            }
            Err(error) => {
                containerd.list_images().await?;
                let error = error.chain();
                if self.notes.failed(item.clone(), &error) {
                    tracing::warn!(%file, image, place, error, "it cannot be imported, and is tried again later");
                } else {
                    tracing::debug!(%file, image, place, error, "it still cannot be imported");
                }
            }
        }
        Ok(())
    }

    /// Returns the archives and the lines of lists that are due now.
    fn due(&self, place: &'static str) -> Vec<Item> {
        let found = self.find();
        self.notes.keep(place, &found);
        let mut due = Vec::new();
        for (path, seen) in found {
            let item = Item { place, path, seen, line: None };
            match self.notes.is_due(&item) {
                true if item.path.extension().is_some_and(|extension| extension == "txt") => {
                    due.extend(self.due_lines(item));
                }
                true => due.push(item),
                false => {}
            }
        }
        due
    }

    /// Returns the lines of a list that are due now.
    fn due_lines(&self, list: Item) -> Vec<Item> {
        let path = &list.path;
        let bytes = match stanchion_untrusted::read(path, Links::Follow, limits::LIST) {
            Ok(bytes) => bytes,
            Err(error) => {
                let error = Error::new(ErrorKind::Invalid, format!("reading the images that {} lists", path.display()))
                    .caused_by(&error)
                    .chain();
                if self.notes.failed(list.clone(), &error) {
                    tracing::warn!(
                        place = list.place,
                        error,
                        "nothing of a list is pulled, and it is read again later"
                    );
                }
                return Vec::new();
            }
        };
        let mut lines = Vec::new();
        let mut known = HashSet::new();
        for Line { number, text, is_utf8 } in read_lines(&bytes) {
            let line = Item { line: Some(text.clone().into_owned()), ..list.clone() };
            if !known.insert(text) || self.notes.is_done(&line) {
                continue;
            }
            if is_utf8 {
                lines.push(line);
                continue;
            }
            let text = SHOWN.cut(line.line.as_deref().unwrap_or_default()).into_owned();
            let (file, place) = (path.display(), list.place);
            tracing::warn!(%file, line = number, text, place, "the line is not UTF-8: it is left out");
            // It stays wrong until the list changes.
            self.notes.done(line);
        }
        if lines.is_empty() {
            self.notes.done(list);
        }
        lines.into_iter().filter(|line| self.notes.is_due(line)).collect()
    }

    fn find(&self) -> Vec<(PathBuf, Seen)> {
        // A K3s without the directory has no archives.
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let own = entries.map(|entry| entry.path()).filter(|path| is_archive(path));
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = |path: PathBuf| {
            let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some((path, (file.len(), file.modified().ok()?)))
        };
        own.chain(asked).filter_map(seen).collect()
    }
}

/// Line of a list that names an image.
struct Line<'a> {
    /// Counted from 1.
    number: usize,
    /// The reference, with replacement characters if it is not UTF-8.
    text: Cow<'a, str>,
    is_utf8: bool,
}

/// Returns the lines of a list that name images: neither empty nor comments, which may have any bytes.
fn read_lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    (1..).zip(bytes.split(|byte| *byte == b'\n')).filter_map(|(number, line)| {
        let (text, is_utf8) = match String::from_utf8_lossy(line) {
            Cow::Borrowed(text) => (Cow::Borrowed(text.trim()), true),
            Cow::Owned(text) => (Cow::Owned(text.trim().to_owned()), false),
        };
        let is_image = !text.is_empty() && !text.starts_with('#');
        is_image.then_some(Line { number, text, is_utf8 })
    })
}

/// Pulls an image, unless it is present. Returns how many it has pulled.
async fn pull<R: Runtime>(containerd: &R, reference: &str) -> Result<usize> {
    if containerd.list_images().await?.iter().any(|image| image.reference == reference) {
        return Ok(0);
    }
    let request = PullImage { reference: reference.to_owned(), ..PullImage::default() };
    containerd.pull_image(request, Progress::ignored()).await.map(|_| 1)
}

/// Returns whether K3s would import a file.
fn is_archive(path: &Path) -> bool {
    const ENDINGS: [&str; 10] =
        [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.lz4", ".tar.zst", ".tzst", ".tar.zstd", ".txt"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}
