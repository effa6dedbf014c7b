//! A pod's eviction, written down beside its volumes.

use std::{fs, io};

use stanchion_untrusted::{Links, read, tree};

use super::{PodFiles, whole};
use crate::limits;

/// The file that says why.
const NAME: &str = "evicted";
/// Where the emptyDirs on disk are.
const EMPTY_DIRS: &str = "volumes/kubernetes.io~empty-dir";

impl PodFiles {
    /// Why the pod was evicted, if it was.
    pub fn eviction(&self) -> io::Result<String> {
        let message = read(self.root().join(NAME), Links::Refuse, limits::OWN_FILE)?;
        Ok(String::from_utf8_lossy(&message).into_owned())
    }

    /// Writes down that the pod is evicted, and why.
    pub fn keep_eviction(&self, message: &str) -> io::Result<()> {
        whole::write(&self.root().join(NAME), message.as_bytes())
    }

    /// What a container's logs take, those of its earlier lives too, bytes.
    pub fn logs_usage(&self, container: &str) -> u64 {
        tree::usage(self.logs.join(container))
    }

    /// What a container has left as its termination messages, bytes.
    pub fn messages_usage(&self, container: &str) -> u64 {
        tree::usage(self.container(container))
    }

    /// What the pod's managed files in `/etc` take, which its containers may write, bytes.
    pub fn etc_usage(&self) -> u64 {
        tree::usage(self.etc())
    }

    /// The pod begins anew after an eviction: without what filled its volumes and its managed files, and without the logs
    /// and the messages of what did.
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
