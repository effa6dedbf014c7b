//! Links to the logs of containers in one directory, for log shippers, with a kubelet's names (R-LOG-2).
//!
//! Each observation is compared with all links, so that the links of an agent that died are removed too.

use std::{collections::HashMap, fs, io, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use futures_util::future::select_all;
use sha2::{Digest, Sha256};
use stanchion_pod::PodKey;
use stanchion_runtime::{ContainerInfo, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{
    blocking,
    files::{PodFiles, ignore_absent},
    shared::Shared,
    worker::uid,
};

/// Maximum length of a file name, bytes.
const LONGEST_NAME: usize = 255;
const ENDING: &str = ".log";

/// Keeps the links up to date until `shutdown`.
pub(crate) async fn run<R: Runtime>(shared: Arc<Shared<R>>, directory: PathBuf, shutdown: CancellationToken) {
    let mut observations: Vec<_> = shared.slots.iter().map(|slot| slot.observer.watch()).collect();
    let mut links = Links { directory, logs: shared.config.log_dir.clone(), failed: None };
    while !observations.is_empty() {
        observations.iter_mut().for_each(|it| drop(it.borrow_and_update()));
        let (wanted, is_all) = wanted(&shared);
        links = blocking(move || links.update(&wanted, is_all)).await;
        let changed = select_all(observations.iter_mut().map(|it| Box::pin(it.changed())));
        if shutdown.run_until_cancelled(changed).await.is_none() {
            return;
        }
    }
}

/// Returns the links of all existing containers, by name, and whether every backend has been observed.
fn wanted<R: Runtime>(shared: &Shared<R>) -> (HashMap<String, PathBuf>, bool) {
    let (state, logs) = (&shared.config.state_dir, &shared.config.log_dir);
    let observations: Vec<_> = shared.slots.iter().map(|slot| slot.observer.latest()).collect();
    let mut wanted = HashMap::new();
    for (key, pod) in observations.iter().flat_map(|observation| &observation.pods) {
        for container in &pod.containers {
            if let (Some(uid), Some(name)) = (uid(&container.labels), name(key, container)) {
                wanted.insert(name, PodFiles::new(state, logs, key, &uid).log(&container.name, container.attempt));
            }
        }
    }
    (wanted, observations.iter().all(|it| it.was_observed))
}

/// Returns the name of a container's link; `None` for names that no pod can have.
fn name(pod: &PodKey, container: &ContainerInfo) -> Option<String> {
    let id = container.id.to_string();
    let is_hash = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Log shippers expect a hash as Docker's and CRI's ids.
    let id = if is_hash { id } else { hex::encode(Sha256::digest(&id)) };
    let mut name = format!("{}_{}_{}-{id}", pod.name, pod.namespace, container.name);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.starts_with('.') || !name.bytes().all(is_plain) {
        return None;
    }
    name.truncate(LONGEST_NAME - ENDING.len());
    Some(name + ENDING)
}

struct Links {
    directory: PathBuf,
    /// Root of the logs. Only links to files below it belong to the agent.
    logs: PathBuf,
    /// The latest error, which is logged once.
    failed: Option<String>,
}

impl Links {
    /// Creates the missing links, and removes those that are not wanted.
    fn update(mut self, wanted: &HashMap<String, PathBuf>, is_all: bool) -> Self {
        let failed = self.try_update(wanted, is_all).err().map(|error| error.to_string());
        if let Some(error) = failed.as_ref().filter(|error| self.failed.as_ref() != Some(*error)) {
            tracing::warn!(directory = %self.directory.display(), error, "links to logs cannot be kept");
        }
        self.failed = failed;
        self
    }

    /// Does as much as possible, and returns the first error.
    fn try_update(&self, wanted: &HashMap<String, PathBuf>, is_all: bool) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut found = HashMap::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(target) = fs::read_link(entry.path()).ok().filter(|target| target.starts_with(&self.logs)) {
                found.insert(entry.file_name().to_string_lossy().into_owned(), target);
            }
        }
        let mut done = Ok(());
        for (name, target) in &found {
            let is_wanted = wanted.get(name) == Some(target);
            if !is_wanted && (is_all || !target.exists()) {
                done = done.and(ignore_absent(self.at(name, fs::remove_file)));
            }
        }
        // A log that does not exist yet gets its link after a later observation.
        let mut missing: Vec<_> =
            wanted.iter().filter(|(name, target)| found.get(*name) != Some(*target) && target.exists()).collect();
        missing.sort();
        for (name, target) in missing {
            done = done.and(self.at(name, |path| symlink(target, path)));
        }
        done
    }

    /// Runs `act` with the path of a link. An error names the link.
    fn at(&self, name: &str, act: impl FnOnce(PathBuf) -> io::Result<()>) -> io::Result<()> {
        act(self.directory.join(name)).map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }
}
