//! Unmounts, shares and finds mounts.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use stanchion_untrusted::{KERNEL_FILE, Links, read};

/// Unmounts everything that is mounted below `root`, the deepest first. It detaches busy mounts, which end with their
/// last user.
pub(super) fn unmount_below(root: &Path) -> io::Result<()> {
    let mut mounts = below(root)?;
    mounts.sort_by_key(|path| std::cmp::Reverse(path.as_os_str().len()));
    for mount in mounts {
        unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// Returns whether something is mounted at exactly this path.
pub(super) fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(points()?.iter().any(|mount| mount == path))
}

/// Returns whether a directory is on a file system other than its parent's, e.g. a tmpfs.
pub(super) fn is_own(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Propagation of the mount that a path is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// Mount point of that mount.
    pub mount: PathBuf,
    /// `true`: mounts made here appear elsewhere.
    pub is_shared: bool,
    /// `true`: mounts made elsewhere appear here.
    pub is_slave: bool,
}

/// Returns the propagation of the mount that `path` is on (proc_pid_mountinfo(5), optional fields).
pub(crate) fn sharing(path: &Path) -> io::Result<Sharing> {
    let path = fs::canonicalize(path)?;
    let table = read("/proc/self/mountinfo", Links::Refuse, KERNEL_FILE)?;
    let mut found = Sharing { mount: PathBuf::from("/"), is_shared: false, is_slave: false };
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let Some(point) = fields.nth(4).map(|point| PathBuf::from(OsString::from_vec(unescape(point)))) else {
            continue;
        };
        // Of several mounts at one point the last is on top.
        if !path.starts_with(&point) || point.as_os_str().len() < found.mount.as_os_str().len() {
            continue;
        }
        let optional: Vec<_> = fields.skip(1).take_while(|field| *field != b"-").collect();
        let has = |prefix: &[u8]| optional.iter().any(|field| field.starts_with(prefix));
        found = Sharing { mount: point, is_shared: has(b"shared:"), is_slave: has(b"master:") };
    }
    Ok(found)
}

/// Makes one of the agent's directories a shared mount, even on a node whose root is not one (R-DIR-3).
pub(crate) fn share(path: &Path) -> io::Result<()> {
    let found = sharing(path)?;
    if found.is_shared {
        return Ok(());
    }
    if found.mount != fs::canonicalize(path)? {
        mount_bind(path, path)?;
    }
    Ok(mount_change(path, MountPropagationFlags::SHARED)?)
}

fn below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut points = points()?;
    points.retain(|mount| mount.starts_with(root));
    Ok(points)
}

/// Returns the mount points of this process's namespace (proc_pid_mountinfo(5), field 5).
fn points() -> io::Result<Vec<PathBuf>> {
    let table = read("/proc/self/mountinfo", Links::Refuse, KERNEL_FILE)?;
    let points = table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(|point| PathBuf::from(OsString::from_vec(unescape(point)))).collect())
}

/// Undoes the kernel's `\040`-style escapes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match code {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn kernel_escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescape(br"/plain\9"), br"/plain\9");
    }
}
