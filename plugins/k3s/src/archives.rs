//! Images from files: K3s's own directory of them, and what the agent has had imported.
//!
//! K3s imports what is in `<data>/agent/images` into its namespace; images are one namespace's, so we import the same files
//! into ours. Each of the containerds that pods may run on needs them: what one has got, the other gets before it is asked
//! which images it has.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use stanchion_containerd::Containerd;
use stanchion_sdk::runtime::{Error, ErrorKind, ImportImages, Progress, PullImage, Runtime};
use stanchion_untrusted::Links;

use crate::limits;

/// A file as it was seen: imported again when that has changed.
type Seen = (u64, SystemTime);

/// The files, and what was done with them.
#[derive(Clone, Debug)]
pub struct Archives {
    directory: PathBuf,
    /// Imported on the agent's behalf.
    asked: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// By containerd and file. Held while it is worked on: two who ask at once import nothing twice.
    done: Arc<tokio::sync::Mutex<HashMap<(&'static str, PathBuf), Seen>>>,
}

impl Archives {
    /// Those of K3s's directory.
    pub fn of(data: &Path) -> Self {
        Self { directory: data.join("agent/images"), asked: Arc::default(), done: Arc::default() }
    }

    /// Notes that an archive was imported.
    pub fn note(&self, path: PathBuf) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    /// Brings a containerd what it has not got. What cannot be imported is told and left until it changes.
    pub async fn bring(&self, place: &'static str, containerd: &Containerd) {
        let mut done = self.done.lock().await;
        for (path, seen) in self.find() {
            let key = (place, path);
            if done.get(&key) == Some(&seen) {
                continue;
            }
            let path = &key.1;
            let brought = match path.extension().is_some_and(|extension| extension == "txt") {
                true => pull(containerd, path).await,
                false => containerd.import_images(ImportImages { path: path.clone() }).await.map(|images| images.len()),
            };
            match brought {
                Ok(images) => tracing::info!(archive = %path.display(), images, place, "imported"),
                Err(error) => {
                    tracing::warn!(archive = %path.display(), place, error = error.chain(), "it cannot be imported");
                    if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
                        continue;
                    }
                }
            }
            done.insert(key, seen);
        }
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

/// The images of a list of references, one a line.
async fn pull(containerd: &Containerd, list: &Path) -> stanchion_sdk::runtime::Result<usize> {
    let present = containerd.list_images().await?;
    let list = list.to_owned();
    let read =
        move || stanchion_untrusted::read_text(&list, Links::Follow, limits::LIST).map_err(|error| (list, error));
    let text = tokio::task::spawn_blocking(read).await;
    let text = text.map_err(|panic| Error::new(ErrorKind::Crashed, "reading a list of images").caused_by(&panic))?;
    let text = text.map_err(|(list, error)| {
        Error::new(ErrorKind::Invalid, format!("reading the images that {} lists", list.display())).caused_by(&error)
    })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let missing: Vec<_> = lines.filter(|line| !present.iter().any(|image| image.reference == *line)).collect();
    for reference in &missing {
        let request = PullImage { reference: (*reference).to_owned(), ..PullImage::default() };
        containerd.pull_image(request, Progress::ignored()).await?;
    }
    Ok(missing.len())
}

/// Whether K3s would import it.
fn is_archive(path: &Path) -> bool {
    const ENDINGS: [&str; 10] =
        [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tar.lz4", ".tar.zst", ".tzst", ".tar.zstd", ".txt"];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with('.') && ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_archive;

    #[test]
    fn archives_are_known_by_their_endings_as_k3s_knows_them() {
        for name in ["a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tbz", "a.tar.lz4", "a.tar.zst", "a.tzst", "a.txt"] {
            assert!(is_archive(Path::new(name)), "{name}");
        }
        for name in ["a.zip", "a.tar.part", ".a.tar", "tar", "a.gz"] {
            assert!(!is_archive(Path::new(name)), "{name}");
        }
    }
}
