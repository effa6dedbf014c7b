//! Where it is noted which users of the node are a pod's.

use std::{
    io,
    path::{Path, PathBuf},
};

use stanchion_pod::PodUid;

use super::{directory, pods, whole};

/// The note of a pod.
pub(crate) fn path(state_dir: &Path, uid: &PodUid) -> PathBuf {
    pods(state_dir).join(uid.as_str()).join("userns")
}

/// Writes it; half of it would keep ranges from all other pods.
pub(crate) fn keep(state_dir: &Path, uid: &PodUid, text: &[u8]) -> io::Result<()> {
    let path = path(state_dir, uid);
    directory(0o700, path.parent().unwrap_or(state_dir))?;
    whole::write_durably(&path, text)
}
