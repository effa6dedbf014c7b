//! A pod's files on the node: volumes, the files that the agent manages in its containers, and its logs.
//!
//! ```text
//! <state_dir>/pods/<uid>/volumes/kubernetes.io~<kind>/<name>       emptyDir, configMap, secret, downwardAPI, projected
//! <state_dir>/pods/<uid>/volume-subpaths/<volume>/<container>/<n>  bind mounts for `subPath`
//! <state_dir>/pods/<uid>/etc/{hosts,hostname,resolv.conf}          managed files
//! <state_dir>/pods/<uid>/containers/<name>/life.json               state of its hook and probes
//! <state_dir>/pods/<uid>/containers/<name>/<attempt>                termination message of an attempt
//! <state_dir>/pods/<uid>/userns                                    UID and GID range, with `hostUsers: false`
//! <state_dir>/pods/<uid>/running.json                              record of the pod that was started, for a restart
//! <state_dir>/pods/<uid>/logs -> <log_dir>/<namespace>_<name>_<uid>
//! <state_dir>/claims/<namespace>/<name>                            directory of a PersistentVolumeClaim: it stays
//! ```

mod etc;
mod eviction;
pub(crate) mod inside;
mod label;
mod lifecycle;
mod message;
mod mounts;
mod owner;
mod permits;
mod points;
mod projected;
mod publish;
mod record;
mod resolver;
mod subpath;
mod users;
mod volume;
pub(crate) mod whole;

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use stanchion_plan::mutant::{self, Mutant};
use stanchion_pod::{ObjectKey, PodKey, PodUid, ProjectedKind};
use stanchion_untrusted::tree;

pub(crate) use etc::{host_name, write as write_etc};
pub(crate) use label::label;
pub(crate) use mounts::{share, sharing};
pub(crate) use permits::{remove, to_measure};
pub(crate) use points::{clean, enclosing, make as make_point};
pub(crate) use record::{Record, RecordedBackend, boot, recorded, recorded_backends};
pub(crate) use subpath::prepare as prepare_sub_path;
pub(crate) use users::{keep as keep_users, path as users};
pub(crate) use volume::{VolumeError, VolumeInputs, prepare as prepare_volume, refresh as refresh_volume};

/// Paths of one pod's files.
#[derive(Clone, Debug)]
pub(crate) struct PodFiles {
    root: PathBuf,
    claims: PathBuf,
    log_dir: PathBuf,
    logs: PathBuf,
}

impl PodFiles {
    pub fn new(state_dir: &Path, log_dir: &Path, key: &PodKey, uid: &PodUid) -> Self {
        Self {
            root: pods(state_dir).join(uid.as_str()),
            claims: state_dir.join("claims"),
            log_dir: log_dir.to_owned(),
            logs: log_dir.join(format!("{}_{}_{uid}", key.namespace, key.name)),
        }
    }

    fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of an emptyDir.
    pub fn empty_dir(&self, volume: &str) -> PathBuf {
        self.root.join("volumes/kubernetes.io~empty-dir").join(volume)
    }

    /// Returns the directory of a volume whose files the agent writes.
    pub fn projected(&self, kind: ProjectedKind, volume: &str) -> PathBuf {
        let kind = match kind {
            ProjectedKind::ConfigMap => "configmap",
            ProjectedKind::Secret => "secret",
            ProjectedKind::DownwardApi => "downward-api",
            ProjectedKind::Projected => "projected",
        };
        self.root.join(format!("volumes/kubernetes.io~{kind}")).join(volume)
    }

    /// Returns the bind mount for a container's `subPath`; `index` is the position of the mount in the manifest.
    pub fn sub_path(&self, volume: &str, container: &str, index: usize) -> PathBuf {
        self.root.join("volume-subpaths").join(volume).join(container).join(index.to_string())
    }

    /// Returns the directory of a PersistentVolumeClaim, which outlives the pod.
    pub fn claim(&self, claim: &ObjectKey) -> PathBuf {
        self.claims.join(&claim.namespace).join(&claim.name)
    }

    /// Returns the directory of the managed files.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// Returns the log file of a container (R-LOG-1).
    pub fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(container).join(format!("{attempt}.log"))
    }

    /// Creates the missing directories of a container.
    pub fn create(&self, container: &str) -> io::Result<()> {
        self.create_root()?;
        directory(0o755, &self.etc())?;
        directory(0o755, &self.logs.join(container))?;
        match symlink(&self.logs, self.root.join("logs")) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Creates the pod's directory, for root only: nobody else may find volumes and manifests.
    fn create_root(&self) -> io::Result<()> {
        directory(0o700, &self.root)
    }

    /// Removes all files of the pod. It unmounts everything below the pod's directory first: nothing is ever deleted
    /// through a mount (R-GC-4).
    pub fn remove(&self) -> io::Result<()> {
        if mutant::is_on(Mutant::LeavesFiles) {
            return Ok(());
        }
        let logs = fs::read_link(self.root.join("logs")).unwrap_or_else(|_| self.logs.clone());
        // The link may be damaged. Only a direct child of the log directory can be a pod's log directory.
        if logs.parent() == Some(&self.log_dir) {
            tree::remove(&logs)?;
        }
        mounts::unmount_below(&self.root)?;
        tree::remove(&self.root)
    }
}

/// Returns the UIDs of the pods that have files on this node.
pub(crate) fn uids(state_dir: &Path) -> io::Result<Vec<PodUid>> {
    let entries = match fs::read_dir(pods(state_dir)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.map(|entry| Ok(PodUid::new(&entry?.file_name().to_string_lossy()))).collect()
}

/// Returns the size of the file system of a path, bytes.
pub(crate) fn disk_size(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_blocks * found.f_frsize)
}

fn pods(state_dir: &Path) -> PathBuf {
    state_dir.join("pods")
}

fn directory(mode: u32, path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Turns `NotFound` into success: the file is gone already.
pub(crate) fn ignore_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
