//! Makes user namespaces of pods, and ID-mapped mounts for them (R-SEC-14).
//!
//! A user namespace maps a pod's users to users of the node. Files belong to users of the node: in an ID-mapped mount
//! (mount_setattr(2)) they appear as the pod's users of the same number, so that images and volumes need no change.
#![expect(
    unsafe_code,
    reason = "running a program in a user namespace, mount_setattr(2) and realtime signals have no safe interface"
)]

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, unshare},
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::{Pid, getppid},
};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use serde::{Deserialize, Serialize};
use stanchion_runtime::{IdRange, RecursiveReadOnly};
use stanchion_untrusted::{make_directory, read_kernel};

/// First kernel whose overlay file system takes ID-mapped layers.
const KERNEL: (u32, u32) = (5, 19);

/// Returns whether this node's kernel, of version `kernel`, can give pods user namespaces, and files to their users.
#[must_use]
pub fn can_be_own(kernel: (u32, u32)) -> bool {
    let most = read_kernel("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    kernel >= KERNEL && most.trim().parse::<u64>().is_ok_and(|most| most > 0)
}

/// Process in new namespaces, which exist with it until they are pinned.
pub(super) struct Holder(Child);

impl Holder {
    /// Runs `program` in new namespaces, one of them a user namespace.
    pub fn start(program: &Path, namespaces: CloneFlags, users: IdRange) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Pid::this();
        let enter = move || {
            unshare(namespaces)?;
            // The process must not outlive the agent, which has no record of it: the agent may have died meanwhile.
            set_pdeathsig(Signal::SIGKILL)?;
            if getppid() == agent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        };
        // SAFETY: between fork and exec `enter` makes three system calls, and none allocates or locks.
        unsafe { command.pre_exec(enter) };
        let holder = Self(command.spawn()?);
        let line = format!("0 {} {}\n", users.first, users.length);
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", holder.id()), &line)?;
        }
        Ok(holder)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            tracing::warn!(%error, process = self.id(), "the process that held namespaces of a pod does not end");
        }
    }
}

/// Write access of a mount. It is set before the mount is moved into the pod: inside a user namespace nobody can change
/// it, not even reduce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Writable.
    Write,
    /// Read-only; mounts below it keep their access.
    Read,
    /// Read-only, with all mounts below it.
    ReadAll,
}

impl Access {
    /// Returns the access that the settings of a mount ask for.
    #[must_use]
    pub fn of(read_only: bool, recursive: RecursiveReadOnly) -> Self {
        match (read_only, recursive) {
            (false, _) => Self::Write,
            (true, RecursiveReadOnly::Disabled) => Self::Read,
            (true, RecursiveReadOnly::IfPossible | RecursiveReadOnly::Enabled) => Self::ReadAll,
        }
    }
}

/// Mounts `source`, with the mounts below it, at `place`, which it makes. The files have the owners that the users of
/// `namespace` see; files of the mounts below keep the node's owners.
///
/// # Errors
/// The file system knows no ID-mapped mounts, or `source` or `place` cannot be used.
pub fn mount_for(namespace: &File, source: &Path, place: &Path, access: Access) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags)?;
    let ids = Attributes { attr_set: libc::MOUNT_ATTR_IDMAP, userns_fd: descriptor(namespace)?, ..NONE };
    set(&tree, false, &ids).map_err(|error| {
        let message = format!("the file system of {} cannot be mounted for users of a pod's own", source.display());
        io::Error::new(error.kind(), format!("{message}: {error}"))
    })?;
    if access != Access::Write {
        set(&tree, access == Access::ReadAll, &Attributes { attr_set: libc::MOUNT_ATTR_RDONLY, ..NONE })?;
    }
    let is_directory = fs::metadata(format!("/proc/self/fd/{}", tree.as_raw_fd()))?.is_dir();
    if let Some(parent) = place.parent() {
        make_directory(parent)?;
    }
    match is_directory {
        true => make_directory(place)?,
        false => drop(File::create_new(place)?),
    }
    Ok(move_mount(&tree, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

type Attributes = libc::mount_attr;
const NONE: Attributes = Attributes { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };

fn descriptor(file: &File) -> io::Result<u64> {
    u64::try_from(file.as_raw_fd()).map_err(io::Error::other)
}

/// Changes a mount, with `all` also those below it.
fn set(mount: &OwnedFd, all: bool, attributes: &Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if all { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, the attributes have the size that is passed, and both outlive the call.
    let answer = unsafe {
        let (descriptor, size) = (mount.as_raw_fd(), size_of::<Attributes>());
        libc::syscall(libc::SYS_mount_setattr, descriptor, c"".as_ptr(), flags, &raw const *attributes, size)
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal of any number to a process, realtime signals too. Succeeds if the process is gone. It is here with
/// the other calls that have no safe interface.
///
/// # Errors
/// Those of kill(2), except for a process that is gone.
pub fn send_signal(pid: i32, signal: u32) -> io::Result<()> {
    let number = i32::try_from(signal).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: kill(2) takes numbers only, and refuses those that name no process or no signal.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            error => Err(error),
        },
    }
}
