//! Shims that containerd has forgotten.
//!
//! containerd, cut off while it creates a task (its caller was killed), forgets the task, and sometimes the shim that
//! it has started for it. Such a shim has nothing to do and would stay until the node reboots (invariant I6).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use stanchion_sdk::shim::{self, Shim};
use stanchion_untrusted::tree;

/// Ends the shims that were started for container `id`. Call it only while no task is in the container's sandbox: all
/// containers of a pod share a shim, which has the id of one of them.
pub(crate) fn end(socket: &Path, namespace: &str, id: &str) -> io::Result<()> {
    let is_ours = |shim: Shim<'_>| shim.namespace == namespace && real(Path::new(shim.address)) == real(socket);
    if shim::end(id, is_ours)? > 0 {
        tracing::info!(container = id, "ended a shim that containerd had forgotten");
    }
    Ok(())
}

/// runc's state directory under containerd's shim, if no other root is configured.
const RUNC_RECORDS: &str = "/run/containerd/runc";

/// Removes runc's state of a container that its shim has left behind. The container's processes must have ended. `root`
/// is runc's state directory, empty for the shim's default.
pub(crate) fn remove_record(root: &str, namespace: &str, id: &str) -> io::Result<()> {
    let root = if root.is_empty() { RUNC_RECORDS } else { root };
    tree::remove(Path::new(root).join(namespace).join(id))
}

/// Resolves the links of a path, if it exists.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::remove_record;

    #[test]
    fn a_record_is_removed_where_it_was_made() {
        let root = tempfile::tempdir().expect("a directory");
        let record = root.path().join("ours/main-0");
        std::fs::create_dir_all(&record).expect("made");
        for _ in 0..2 {
            remove_record(&root.path().display().to_string(), "ours", "main-0").expect("removed, or gone already");
            assert!(!record.exists());
        }
    }
}
