//! A directory of manifests: its entries and its identity.
//!
//! A path can name another directory from one moment to the next: a mount over it goes away, or a link is switched. An
//! empty directory is an order to stop everything only if it is the one that held the manifests.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags, open, statx};
use serde::{Deserialize, Serialize};

use super::leftover;

/// File that marks an empty directory as intended: no pod is wanted.
pub(super) const EMPTY_MARKER: &str = ".empty";

/// Identity of a directory, which lasts across reboots of the node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Directory {
    device: (u32, u32),
    inode: u64,
    /// Time of birth, if the file system records it (statx(2)).
    born: Option<(i64, u32)>,
}

impl Directory {
    fn of(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let found = statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
        let born = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: born.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
        })
    }

    /// Returns whether both are the same directory. Device numbers can change at a reboot, so they count only without
    /// times of birth.
    pub fn is(&self, other: &Self) -> bool {
        let is_born = match (self.born, other.born) {
            (Some(one), Some(other)) => one == other,
            _ => self.device == other.device,
        };
        self.inode == other.inode && is_born
    }
}

/// Entries of a source.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names that manifests can have; names of directories are among them.
    pub names: BTreeSet<OsString>,
    /// `true` if any of these is not a directory.
    pub has_files: bool,
    /// `true` if [`EMPTY_MARKER`] says that no manifest is to be there.
    pub is_marked_empty: bool,
    /// Identity of the directory; `None` for a source that is one file.
    pub directory: Option<Directory>,
}

/// Lists a directory.
pub(super) fn list(path: &Path) -> io::Result<Listing> {
    let opened = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let directory = Some(Directory::of(opened.as_fd())?);
    let mut listing = Listing { names: BTreeSet::new(), has_files: false, is_marked_empty: false, directory };
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        listing.is_marked_empty |= name == EMPTY_MARKER;
        if name.as_bytes().starts_with(b".") || leftover::leftover(&name.to_string_lossy()).is_some() {
            continue;
        }
        listing.has_files |= entry.file_type() != FileType::Directory;
        listing.names.insert(name.to_owned());
    }
    Ok(listing)
}
