//! A pod's eviction, written down beside its volumes.

use std::{fs, io, path::Path};

use super::{PodFiles, ignore_absent};

/// The file that says why.
const NAME: &str = "evicted";
/// Where the emptyDirs on disk are.
const EMPTY_DIRS: &str = "volumes/kubernetes.io~empty-dir";

impl PodFiles {
    /// Why the pod was evicted, if it was.
    pub fn eviction(&self) -> io::Result<String> {
        fs::read_to_string(self.root().join(NAME))
    }

    /// Writes down that the pod is evicted, and why.
    pub fn keep_eviction(&self, message: &str) -> io::Result<()> {
        fs::write(self.root().join(NAME), message)
    }

    /// What a container's logs take, those of its earlier lives too, bytes.
    pub fn logs_usage(&self, container: &str) -> u64 {
        usage(&self.logs.join(container))
    }

    /// The pod begins anew after an eviction: without what filled its volumes, and without the logs of what did.
    pub fn end_eviction(&self) -> io::Result<()> {
        if !self.root().join(NAME).exists() {
            return Ok(());
        }
        super::mounts::unmount_below(&self.root().join("volume-subpaths"))?;
        super::mounts::unmount_below(&self.root().join(EMPTY_DIRS))?;
        ignore_absent(fs::remove_dir_all(self.root().join(EMPTY_DIRS)))?;
        ignore_absent(fs::remove_dir_all(&self.logs))?;
        fs::remove_file(self.root().join(NAME))
    }
}

/// What the files in a directory take of the disk, bytes. What cannot be looked at counts nothing.
pub(crate) fn usage(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;

    let (mut used, mut open) = (0, vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // Not followed, should it be a link.
            let Ok(found) = entry.metadata() else { continue };
            used += found.blocks() * 512;
            if found.is_dir() {
                open.push(entry.path());
            }
        }
    }
    used
}
