//! The record of a pod that runs, for the agent's next start: by then the pod's manifest may have been edited.

use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use serde::{Deserialize, Serialize};
use stanchion_pod::{Origin, Pod, PodKey, Revision, decode_from, k8s_openapi::api::core::v1 as wire, restore};
use stanchion_untrusted::{Links, read as read_file, read_kernel};

use super::{PodFiles, whole};
use crate::limits;

/// The record's file, in the pod's directory.
const NAME: &str = "running.json";

/// Pod that a sandbox was made for, and the origin of its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod, node suffix included.
    pub name: String,
    /// Id of the node's boot: no container outlives a boot.
    pub boot: String,
    /// Backend that the pod was put on.
    pub backend: String,
    /// Backend that the pod belongs on, if it was put on another because that one was absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
    /// Revision of the pod, as its labels have it.
    pub revision: String,
    /// `true` if the pod was stopped, for good or to be replaced: then it is not started again.
    #[serde(default)]
    pub is_stopped: bool,
    /// Origin of the pod's manifest.
    #[serde(default)]
    pub origin: Origin,
    /// The pod itself. It may hold secrets, so that only root can read the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<wire::Pod>>,
    /// The whole manifest, which earlier versions recorded instead of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manifest: String,
}

impl Record {
    /// Returns the pod; `None` if this agent reads the record differently from the agent that wrote it.
    pub fn pod(&self, key: &PodKey, node_name: &str) -> Option<Pod> {
        let revision = Revision::new(&self.revision);
        if let Some(pod) = &self.pod {
            let pod = restore(wire::Pod::clone(pod), revision, self.origin).ok();
            return pod.filter(|pod| pod.key == *key);
        }
        let manifest = decode_from(self.origin, self.manifest.as_bytes(), node_name).ok()?;
        manifest.pods.into_iter().find(|pod| pod.key == *key && pod.revision == revision)
    }
}

/// Backend that an agent put a pod on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordedBackend {
    pub uid: String,
    pub revision: String,
    pub backend: String,
    /// The backend that was absent.
    pub instead_of: Option<String>,
}

/// Returns the backends of pods that were put on one since the node's boot. It logs and skips records that it cannot
/// read.
pub(crate) fn recorded_backends(state_dir: &Path) -> HashMap<PodKey, Vec<RecordedBackend>> {
    let mut recorded_backends: HashMap<_, Vec<_>> = HashMap::new();
    let boot = boot();
    for directory in fs::read_dir(super::pods(state_dir)).into_iter().flatten().flatten() {
        match read(&directory.path().join(NAME)) {
            Ok(Some(record)) if record.boot == boot => {
                let key = PodKey { namespace: record.namespace, name: record.name };
                let Record { revision, backend, instead_of, .. } = record;
                let uid = directory.file_name().to_string_lossy().into_owned();
                recorded_backends.entry(key).or_default().push(RecordedBackend { uid, revision, backend, instead_of });
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(path = %directory.path().display(), %error, "a record cannot be read"),
        }
    }
    recorded_backends
}

/// Returns the pods of all records, of any boot of the node. A record that this agent reads differently from the agent
/// that wrote it is left out.
pub(crate) fn recorded(state_dir: &Path, node_name: &str) -> io::Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for uid in super::uids(state_dir)? {
        if let Some(record) = read(&super::pods(state_dir).join(uid.as_str()).join(NAME))? {
            let key = PodKey { namespace: record.namespace.clone(), name: record.name.clone() };
            pods.extend(record.pod(&key, node_name));
        }
    }
    Ok(pods)
}

/// Returns the id of the node's boot, from `/proc`; empty if that cannot be read.
pub(crate) fn boot() -> String {
    let id = read_kernel("/proc/sys/kernel/random/boot_id");
    id.unwrap_or_default().trim().to_owned()
}

fn read(path: &Path) -> io::Result<Option<Record>> {
    match read_file(path, Links::Refuse, limits::OWN_FILE) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl PodFiles {
    /// Writes the record of the pod that is about to run. Of one UID only the latest record counts.
    pub fn keep_record(&self, record: &Record) -> io::Result<()> {
        self.create_root()?;
        whole::write(&self.root.join(NAME), &serde_json::to_vec(record)?)
    }

    /// Records that the pod is stopped and must not be started again.
    pub fn record_stop(&self) -> io::Result<()> {
        match self.record()? {
            Some(record) if !record.is_stopped => self.keep_record(&Record { is_stopped: true, ..record }),
            _ => Ok(()),
        }
    }

    /// Returns the record; `None` if there is none.
    pub fn record(&self) -> io::Result<Option<Record>> {
        read(&self.root.join(NAME))
    }
}
