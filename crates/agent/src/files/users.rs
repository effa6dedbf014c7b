//! Files with the UID and GID ranges of pods with `hostUsers: false`.

use std::{
    io,
    path::{Path, PathBuf},
};

use stanchion_pod::PodUid;

use super::{directory, pods, whole};

/// Returns the path of a pod's file.
pub(crate) fn path(state_dir: &Path, uid: &PodUid) -> PathBuf {
    pods(state_dir).join(uid.as_str()).join("userns")
}

/// Writes a pod's file, durably: half a file would keep all other pods from getting ranges.
pub(crate) fn keep(state_dir: &Path, uid: &PodUid, text: &[u8]) -> io::Result<()> {
    let path = path(state_dir, uid);
    directory(0o700, path.parent().unwrap_or(state_dir))?;
    whole::write_durably(&path, text)
}
