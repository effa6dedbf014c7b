//! Records a pod's eviction beside its volumes.

use std::{fs, io};

use stanchion_untrusted::{Links, read, tree};

use super::{PodFiles, whole};
use crate::limits;

/// Name of the file with the reason of the eviction.
const NAME: &str = "evicted";
/// Directory of the emptyDirs on disk, below the pod's directory.
const EMPTY_DIRS: &str = "volumes/kubernetes.io~empty-dir";

impl PodFiles {
    /// Returns the reason why the pod was evicted; the error is `NotFound` if it was not.
    pub fn eviction(&self) -> io::Result<String> {
        let message = read(self.root().join(NAME), Links::Refuse, limits::OWN_FILE)?;
        Ok(String::from_utf8_lossy(&message).into_owned())
    }

    /// Records that the pod is evicted, and why.
    pub fn keep_eviction(&self, message: &str) -> io::Result<()> {
        whole::write(&self.root().join(NAME), message.as_bytes())
    }

    /// Returns the disk usage of a container's logs, with those of its earlier instances, bytes.
    pub fn logs_usage(&self, container: &str) -> u64 {
        tree::usage(self.logs.join(container))
    }

    /// Returns the disk usage of a container's termination messages, bytes.
    pub fn messages_usage(&self, container: &str) -> u64 {
        tree::usage(self.container(container))
    }

    /// Returns the disk usage of the pod's managed files in `/etc`, which its containers may write, bytes.
    pub fn etc_usage(&self) -> u64 {
        tree::usage(self.etc())
    }

    /// Ends an eviction, if there was one, so that the pod starts anew: removes the pod's emptyDirs on disk, its
    /// managed files, its logs and its termination messages.
    pub fn end_eviction(&self) -> io::Result<()> {
        if !self.root().join(NAME).exists() {
            return Ok(());
        }
        super::mounts::unmount_below(&self.root().join("volume-subpaths"))?;
        super::mounts::unmount_below(&self.root().join(EMPTY_DIRS))?;
        tree::remove(self.root().join(EMPTY_DIRS))?;
        tree::remove(&self.logs)?;
        tree::remove(self.etc())?;
        self.remove_messages()?;
        fs::remove_file(self.root().join(NAME))
    }
}
