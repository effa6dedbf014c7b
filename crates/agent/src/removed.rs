//! Removed pods in their last state (R-TERM-7): one small file for each, kept for a while.
//!
//! ```text
//! <state_dir>/removed/<when, ms since 1970>-<uid>.json            as older agents wrote it
//! <state_dir>/removed/<when, ms since 1970>-<boot>.<ns since>-<uid>.json
//! ```

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use stanchion_board::view::{PodView, REMOVED_AT, RemovedView};
use stanchion_plan::time::Stamp;
use stanchion_pod::k8s_openapi::{
    api::core::v1 as wire,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use stanchion_untrusted::{Links, make_directory, read};

use crate::{
    config::Remembered,
    files::{ignore_absent, whole},
    limits,
};

/// Status reason of a pod that had not ended when its manifest was removed.
const REASON: &str = "ManifestRemoved";
const MESSAGE: &str = "The pod was stopped because its manifest was removed";

/// Store of removed pods.
#[derive(Debug)]
pub struct Removed {
    directory: PathBuf,
    bounds: Remembered,
    /// Lock for changes: a file that is being written must not be taken for a leftover.
    change: Mutex<()>,
}

impl Removed {
    /// Creates the store of an agent with this state directory.
    #[must_use]
    pub fn new(state_dir: &Path, bounds: Remembered) -> Self {
        Self { directory: state_dir.join("removed"), bounds, change: Mutex::new(()) }
    }

    /// Returns the removed pods, the latest first. It skips files that cannot be read.
    #[must_use]
    pub fn list(&self, now: Stamp) -> Vec<RemovedView> {
        let (kept, _) = self.entries(now);
        let parse = |path: &PathBuf| {
            let read =
                read(path, Links::Refuse, limits::OWN_FILE).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
            read.inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "a removed pod's last status is lost"),
            )
        };
        kept.iter().filter_map(|path| parse(path).ok()).collect()
    }

    /// Stores a pod's last status. A power cut leaves all of it or nothing.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn keep(&self, removed: &RemovedView, now: Stamp) -> io::Result<()> {
        if self.bounds.most == 0 {
            return Ok(());
        }
        let change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        make_directory(&self.directory)?;
        let uid = removed.pod.metadata.uid.as_deref().unwrap_or_default();
        let name = file_name(now, uid);
        whole::write_durably(&self.directory.join(name), &serde_json::to_vec(removed)?)?;
        drop(change);
        self.forget(now)
    }

    /// Removes files that are too old or too many, and those of interrupted writes.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn forget(&self, now: Stamp) -> io::Result<()> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, rest) = self.entries(now);
        rest.iter().try_for_each(|path| ignore_absent(fs::remove_file(path)))
    }

    /// Returns the files to keep, the latest first, and the files to remove.
    fn entries(&self, now: Stamp) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let age = |name: &str| Some(now.since(removed_at(name)?));
        let dated = entries.map(|entry| (age(&entry.file_name().to_string_lossy()), entry.path()));
        let is_young = |age: Option<Duration>| age.is_some_and(|age| age <= self.bounds.age);
        let (mut kept, rest): (Vec<_>, Vec<_>) = dated.partition(|(age, _)| is_young(*age));
        kept.sort_unstable_by(|(age, path), (other, others)| age.cmp(other).then_with(|| others.cmp(path)));
        let more = kept.split_off(kept.len().min(self.bounds.most));
        let paths = |of: Vec<(Option<Duration>, PathBuf)>| of.into_iter().map(|(_, path)| path).collect();
        (paths(kept), paths(rest.into_iter().chain(more).collect()))
    }
}

/// Returns the time of a pod's removal from the name of its file; `None` for other files.
fn removed_at(name: &str) -> Option<Stamp> {
    let (at, rest) = name.strip_suffix(".json")?.split_once('-')?;
    let wall = Timestamp::from_millisecond(at.parse().ok()?).ok()?;
    let boot = rest.split_once('-').and_then(|(boot, _)| boot.split_once('.'));
    let stamp = boot.and_then(|(id, at)| format!("{wall} {id} {at}").parse().ok());
    Some(stamp.unwrap_or(wall.into()))
}

fn file_name(at: Stamp, uid: &str) -> String {
    let text = at.to_string();
    let boot = text.split_once(' ').map(|(_, boot)| format!("{}-", boot.replace(' ', "."))).unwrap_or_default();
    format!("{:016}-{boot}{uid}.json", at.wall.as_millisecond())
}

/// Returns the state of a pod that is worth keeping: its name, its containers with their images, and how it ended.
/// Secrets may be in the rest: environment, arguments, annotations and volumes are omitted.
pub(crate) fn remembered(view: &PodView, removed_at: Timestamp) -> RemovedView {
    let PodView { pod, backend, manifest, .. } = view;
    let spec = pod.spec.as_ref();
    let ObjectMeta { name, namespace, uid, labels, creation_timestamp, deletion_timestamp, .. } = pod.metadata.clone();
    let metadata = ObjectMeta {
        name,
        namespace,
        uid,
        labels,
        creation_timestamp,
        deletion_timestamp: deletion_timestamp.or(Some(Time(removed_at))),
        annotations: Some([(REMOVED_AT.to_owned(), removed_at.to_string())].into()),
        ..ObjectMeta::default()
    };
    let containers = |of: &[wire::Container]| of.iter().map(container).collect::<Vec<_>>();
    let spec = spec.map(|spec| wire::PodSpec {
        containers: containers(&spec.containers),
        init_containers: spec.init_containers.as_deref().map(containers),
        node_name: spec.node_name.clone(),
        restart_policy: spec.restart_policy.clone(),
        ..wire::PodSpec::default()
    });
    let count = spec.as_ref().map_or(0, |spec| spec.containers.len());
    let status = Some(ended(pod.status.clone().unwrap_or_default(), count));
    let pod = wire::Pod { metadata, spec, status };
    RemovedView { pod, backend: backend.clone(), manifest: manifest.clone(), removed_at }
}

fn container(of: &wire::Container) -> wire::Container {
    wire::Container {
        name: of.name.clone(),
        image: of.image.clone(),
        restart_policy: of.restart_policy.clone(),
        ..wire::Container::default()
    }
}

/// Returns the final status of a pod with so many containers: `Succeeded` if all have exited with code 0, as a kubelet
/// does for pods of the API server.
fn ended(mut status: wire::PodStatus, containers: usize) -> wire::PodStatus {
    for container in
        status.init_container_statuses.iter_mut().flatten().chain(status.container_statuses.iter_mut().flatten())
    {
        let end = |state: &Option<wire::ContainerState>| state.clone().filter(|state| state.terminated.is_some());
        // A container that was waiting for its restart has ended.
        if let Some(last) = end(&container.last_state).filter(|_| end(&container.state).is_none()) {
            container.state = Some(last);
            container.last_state = None;
        }
        container.ready = false;
        container.started = Some(false);
    }
    if !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        let code = |it: &wire::ContainerStatus| Some(it.state.as_ref()?.terminated.as_ref()?.exit_code);
        let mut codes = status.container_statuses.iter().flatten().map(code);
        let succeeded = codes.clone().count() == containers && codes.all(|code| code == Some(0));
        status.phase = Some(if succeeded { "Succeeded" } else { "Failed" }.to_owned());
        status.reason = Some(REASON.to_owned());
        status.message = Some(MESSAGE.to_owned());
    }
    // The other conditions no longer hold.
    let lasts = |it: &wire::PodCondition| matches!(it.type_.as_str(), "PodScheduled" | "Initialized");
    status.conditions.iter_mut().for_each(|conditions| conditions.retain(lasts));
    status
}
