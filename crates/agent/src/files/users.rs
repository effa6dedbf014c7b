//! Where it is noted which users of the node are a pod's.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use stanchion_pod::PodUid;

use super::{directory, pods};

/// The note of a pod.
pub(crate) fn path(state_dir: &Path, uid: &PodUid) -> PathBuf {
    pods(state_dir).join(uid.as_str()).join("userns")
}

/// Writes it, whole or not at all.
pub(crate) fn keep(state_dir: &Path, uid: &PodUid, text: &[u8]) -> io::Result<()> {
    let path = path(state_dir, uid);
    let root = path.parent().unwrap_or(state_dir);
    directory(0o700, root)?;
    let mut file = tempfile::Builder::new().prefix(".").tempfile_in(root)?;
    file.write_all(text)?;
    file.persist(path)?;
    Ok(())
}
