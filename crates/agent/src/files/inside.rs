//! Opens paths that cannot lead out of a directory, whatever symbolic links a container puts there, at any time
//! (openat2(2), R-MNT-4).

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use stanchion_untrusted::file::open_found;

/// Resolution that follows links that stay inside, but no absolute links, no `..` above the root and none of the
/// kernel's magic links.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory as the root of such paths.
pub(crate) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the entry at `path` below `root`.
pub(crate) fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let opened = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH);
    opened.map_err(|errno| match errno {
        rustix::io::Errno::XDEV => {
            io::Error::new(io::ErrorKind::PermissionDenied, "a symbolic link in the path leads out of the volume")
        }
        errno => errno.into(),
    })
}

/// Opens a regular file below the directory `root` for reading.
pub(crate) fn open_file(root: &Path, path: &Path) -> io::Result<File> {
    open_found(&open_below(&self::root(root)?, path, OFlags::PATH)?)
}
