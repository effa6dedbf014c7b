//! Containers that run while containerd is away: shims and their containers go on without it.
//!
//! containerd keeps a directory for every task, the bundle, below its state directory. It holds the OCI configuration,
//! whose annotations repeat our records, and the id of the first process.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::services::v1::Container;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stanchion_network::namespaces::users::send_signal;
use stanchion_sdk::runtime::{
    ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, Inventory, Result, SandboxId, SandboxInfo,
    SandboxState,
};
use stanchion_untrusted::{Links, read, read_kernel, read_text};

use crate::{
    Containerd,
    cgroup::Cgroup,
    inventory::{self, given},
    limits,
    names::{self, RECORD, SANDBOX_RECORD},
    task,
};

/// Interval between checks whether a signalled process has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// Content of a container's record.
#[derive(Serialize, Deserialize)]
struct Note {
    labels: BTreeMap<String, String>,
    image: String,
}

/// Content of a sandbox's record.
#[derive(Serialize, Deserialize)]
struct SandboxNote {
    labels: BTreeMap<String, String>,
    created_at: Timestamp,
}

/// Returns the annotations that repeat the records of a container and its sandbox.
pub(crate) fn notes(
    labels: &HashMap<String, String>,
    image: &str,
    sandbox: &Container,
) -> serde_json::Result<[(String, String); 2]> {
    let sorted = |labels: &HashMap<String, String>| labels.clone().into_iter().collect();
    let created_at = sandbox.created_at.as_ref().map(inventory::timestamp).unwrap_or_default();
    let note = Note { labels: sorted(labels), image: image.to_owned() };
    let sandbox = SandboxNote { labels: sorted(&sandbox.labels), created_at };
    Ok([
        (RECORD.to_owned(), serde_json::to_string(&note)?),
        (SANDBOX_RECORD.to_owned(), serde_json::to_string(&sandbox)?),
    ])
}

/// Used part of an OCI configuration.
#[derive(Deserialize)]
pub(crate) struct Bundle {
    /// Our notes, among others.
    #[serde(default)]
    pub annotations: HashMap<String, String>,
}

/// Stanchion's running containers of one containerd, found without it.
#[derive(Clone, Debug)]
pub struct Unattended {
    backend: Containerd,
    /// Directory of the bundles of our namespace.
    bundles: PathBuf,
}

/// A running container.
struct Running {
    note: Note,
    sandbox: SandboxNote,
    bundle: PathBuf,
}

impl Unattended {
    /// Reads the bundles of the containerd with this state directory.
    #[must_use]
    pub fn new(backend: Containerd, state: &Path) -> Self {
        let bundles = state.join("io.containerd.runtime.v2.task").join(backend.client.namespace());
        Self { backend, bundles }
    }

    /// Lists the containers that have running processes, and their sandboxes. Containers that have ended or never
    /// started are left out: only containerd knows of them.
    ///
    /// # Errors
    /// The bundles cannot be read.
    pub async fn list(&self) -> Result<Inventory> {
        let unattended = self.clone();
        self.backend.blocking(move |_| unattended.look()).await
    }

    fn look(&self) -> Result<Inventory> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Other, format!("looking for what runs in {}", self.bundles.display()))
                .caused_by(&error)
        };
        let bundles = match fs::read_dir(&self.bundles) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Inventory::default()),
            bundles => bundles.map_err(failed)?,
        };
        let mut sandboxes = BTreeMap::new();
        let mut containers = Vec::new();
        for bundle in bundles {
            let bundle = bundle.map_err(failed)?;
            let id = bundle.file_name().to_string_lossy().into_owned();
            let Some(running) = self.running(&id) else { continue };
            let info = running.info(id);
            sandboxes.entry(info.sandbox.clone()).or_insert_with(|| self.sandbox(&info.sandbox, running.sandbox));
            containers.push(info);
        }
        Ok(Inventory { sandboxes: sandboxes.into_values().collect(), containers })
    }

    fn running(&self, id: &str) -> Option<Running> {
        let bundle = self.bundles.join(id);
        let text = read(bundle.join("config.json"), Links::Follow, limits::OWN_FILE).ok()?;
        let Bundle { annotations } = serde_json::from_slice(&text).ok()?;
        let note: Note = serde_json::from_str(annotations.get(RECORD)?).ok()?;
        let sandbox = serde_json::from_str(annotations.get(SANDBOX_RECORD)?).ok()?;
        let is_alive = Cgroup::at(note.labels.get(names::CGROUP)?).population().unwrap_or(0) > 0;
        is_alive.then_some(Running { note, sandbox, bundle })
    }

    fn sandbox(&self, id: &SandboxId, note: SandboxNote) -> SandboxInfo {
        let label = |label: &str| note.labels.get(label).map(String::as_str).unwrap_or_default();
        let own = names::noted_own(|label| note.labels.get(label));
        let is_pinned = self.backend.namespaces(id.as_str()).are_pinned(own, label(names::PID) == "pod");
        let reason = || "its namespaces are gone: somebody unmounted them".to_owned();
        SandboxInfo {
            id: id.clone(),
            state: if is_pinned { SandboxState::Ready } else { SandboxState::NotReady { reason: reason() } },
            addresses: label(names::ADDRESSES).split(',').filter_map(|address| address.parse().ok()).collect(),
            created_at: note.created_at,
            attempt: label(names::ATTEMPT).parse().unwrap_or(0),
            labels: given(note.labels),
        }
    }

    /// Stops a container as [`stop_container`](stanchion_sdk::runtime::Runtime::stop_container) does. Does nothing if
    /// it does not run.
    ///
    /// # Errors
    /// The container's processes cannot be signalled, or do not end.
    pub async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let Some(running) = self.running(id.as_str()) else { return Ok(()) };
        let failed =
            |error: io::Error| Error::new(ErrorKind::Other, format!("stopping container {id}")).caused_by(&error);
        let cgroup = Cgroup::at(&running.note.labels[names::CGROUP]);
        if !grace.is_zero() {
            running.ask_to_end().map_err(failed)?;
            let ended = async {
                while cgroup.population().unwrap_or(0) > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return Ok(());
            }
        }
        cgroup.destroy().await.map_err(failed)
    }
}

impl Running {
    fn info(&self, id: String) -> ContainerInfo {
        let label = |label: &str| self.note.labels.get(label).cloned().unwrap_or_default();
        let started_at = fs::metadata(self.bundle.join("init.pid")).and_then(|file| file.modified()).ok();
        let started_at = started_at.and_then(|at| Timestamp::try_from(at).ok());
        ContainerInfo {
            id: ContainerId(id),
            sandbox: SandboxId(label(names::SANDBOX)),
            name: label(names::NAME),
            attempt: label(names::ATTEMPT).parse().unwrap_or(0),
            image: self.note.image.clone(),
            image_digest: Some(inventory::image_digest(&self.note.image, &label(names::IMAGE_DIGEST))),
            created_at: started_at.unwrap_or_default(),
            state: ContainerState::Running { started_at },
            labels: given(self.note.labels.clone()),
        }
    }

    /// Sends the stop signal to the first process, if that is still the one that was started.
    fn ask_to_end(&self) -> io::Result<()> {
        let signal = task::stop_signal(self.note.labels.get(names::STOP_SIGNAL));
        let Ok(pid) = read_text(self.bundle.join("init.pid"), Links::Follow, limits::OWN_FILE) else { return Ok(()) };
        let Ok(pid) = pid.trim().parse::<i32>() else { return Ok(()) };
        let cgroup = self.note.labels.get(names::CGROUP).map(String::as_str).unwrap_or_default();
        let is_its = read_kernel(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(cgroup));
        if !is_its || cgroup.is_empty() || pid <= 1 {
            return Ok(());
        }
        send_signal(pid, signal)
    }
}
