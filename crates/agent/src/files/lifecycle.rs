//! State of a container's hook and probes on disk, for the agent's next start.

use std::{
    io::{self, ErrorKind},
    path::PathBuf,
};

use stanchion_plan::lifecycle::LifecycleState;
use stanchion_runtime::ContainerId;
use stanchion_untrusted::{Links, read};

use super::{PodFiles, directory, whole};
use crate::limits;

/// Name of the file, in the container's directory.
const NAME: &str = "life.json";

impl PodFiles {
    /// Returns the directory of the containers with that name.
    pub(super) fn container(&self, name: &str) -> PathBuf {
        self.containers().join(name)
    }

    pub(super) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Writes the state of a container to disk. Of one name it keeps only the latest container's state.
    pub fn keep_lifecycle(&self, name: &str, id: &ContainerId, state: &LifecycleState) -> io::Result<()> {
        self.create_root()?;
        let place = self.container(name);
        directory(0o755, &place)?;
        whole::write(&place.join(NAME), &serde_json::to_vec(&(id, state))?)
    }

    /// Returns the kept state of this container; `None` if there is none.
    pub fn lifecycle(&self, name: &str, id: &ContainerId) -> io::Result<Option<LifecycleState>> {
        match read(self.container(name).join(NAME), Links::Refuse, limits::OWN_FILE) {
            Ok(bytes) => {
                let (of, state): (ContainerId, LifecycleState) = serde_json::from_slice(&bytes)?;
                Ok((of == *id).then_some(state))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
