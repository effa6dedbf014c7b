//! What runs, written down for the agent's next life: its manifest may have been edited by then.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use stanchion_pod::{Pod, PodKey, Revision, decode};

use super::PodFiles;

/// Which pod stands in a sandbox, and from which manifest it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The backend it was put on.
    pub backend: String,
    /// Its revision, as its labels have it.
    pub revision: String,
    /// What was in its manifest file. It may hold secrets: the file is only root's to read.
    pub manifest: String,
}

impl Record {
    /// The pod; `None` when the manifest does not hold it, or this agent reads it otherwise than the one that kept it.
    pub fn pod(&self, key: &PodKey, node_name: &str) -> Option<Pod> {
        let manifest = decode(self.manifest.as_bytes(), node_name).ok()?;
        let revision = Revision::new(&self.revision);
        manifest.pods.into_iter().find(|pod| pod.key == *key && pod.revision == revision)
    }
}

impl PodFiles {
    /// Writes down what is about to run. Of one UID only the latest counts.
    pub fn keep_record(&self, record: &Record) -> io::Result<()> {
        self.create_root()?;
        let mut file = tempfile::Builder::new().prefix(".").tempfile_in(&self.root)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.persist(self.record_path())?;
        Ok(())
    }

    /// What was written down; `None` when nothing was.
    pub fn record(&self) -> io::Result<Option<Record>> {
        match fs::read(self.record_path()) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn record_path(&self) -> PathBuf {
        self.root.join("running.json")
    }
}
