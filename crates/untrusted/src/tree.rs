//! Measures, visits and removes directory trees.
//!
//! Anyone who can write a tree can make it deeper than any path or stack and broader than memory, and can swap its
//! directories while somebody walks it. So nothing here recurses or uses names of more than one component: all
//! functions walk a tree by descriptors, of which at most some 30 are open at a time. They follow no symbolic links,
//! and enter no file system or directory that is mounted in the tree.
//!
//! # Layout
//! `levels`: goes down into directories and back up. `removal`: removes a tree.

mod levels;
mod removal;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    ffi::CStr,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags, open, openat, statx},
    io::Errno,
};

use levels::{Levels, open_child};
pub use removal::{remove, remove_at};

/// Entry of a tree. It is open, since its name could stand for another entry by now.
#[derive(Debug)]
pub enum Found<'a> {
    /// Directory, visited after everything in it.
    Directory(BorrowedFd<'a>),
    /// Symbolic link, by its name in a directory.
    Link(BorrowedFd<'a>, &'a CStr),
    /// Anything else; it is open as a path only (`O_PATH`).
    File(BorrowedFd<'a>),
}

/// Visits a directory and everything in it, except mounts. Entries that somebody creates meanwhile cannot lead it out
/// of the tree.
///
/// # Errors
/// A directory cannot be read, `visit` fails, or a directory was moved away before everything in it was visited.
pub fn walk(top: impl AsRef<Path>, mut visit: impl FnMut(Found<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut levels = Levels::below(open_top(top.as_ref())?)?;
    loop {
        let Some(entry) = levels.next() else {
            visit(Found::Directory(levels.directory()))?;
            if levels.leave().is_none() {
                break;
            }
            continue;
        };
        let entry = entry?;
        let (directory, name) = (levels.directory(), entry.file_name());
        match kind(directory, &entry) {
            FileType::Directory => match open_child(directory, name) {
                Ok(opened) => levels.enter(opened)?,
                Err(error) if is_another(error) => {}
                Err(error) => return Err(error.into()),
            },
            FileType::Symlink => visit(Found::Link(directory, name))?,
            _ => match open_file(directory, name) {
                Ok(file) => visit(Found::File(std::os::fd::AsFd::as_fd(&file)))?,
                Err(error) if is_another(error) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    match levels.has_lost() {
        true => Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "directories were moved while the tree was read; try again",
        )),
        false => Ok(()),
    }
}

/// Largest number of hard-linked files that are told apart; those after them are not counted.
const LINKED: usize = 1 << 20;

/// Returns the disk usage of the files in a directory, bytes, without mounts. A file with several hard links counts
/// once; an entry that cannot be examined is not counted.
#[must_use]
pub fn usage(top: impl AsRef<Path>) -> u64 {
    let mut used = 0_u64;
    let mut linked = HashSet::new();
    let Ok(mut levels) = open_top(top.as_ref()).and_then(Levels::below) else { return used };
    loop {
        let Some(entry) = levels.next() else {
            match levels.leave() {
                Some(_) => continue,
                None => return used,
            }
        };
        let Ok(entry) = entry else { continue };
        let (directory, name) = (levels.directory(), entry.file_name());
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let wanted = StatxFlags::TYPE | StatxFlags::BLOCKS | StatxFlags::NLINK | StatxFlags::INO;
        let Ok(found) = statx(directory, name, flags, wanted) else { continue };
        if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            continue;
        }
        let is_directory = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Directory;
        if found.stx_nlink > 1 && !is_directory && (linked.len() >= LINKED || !linked.insert(found.stx_ino)) {
            continue;
        }
        used = used.saturating_add(found.stx_blocks.saturating_mul(512));
        if is_directory
            && let Ok(opened) = open_child(directory, name)
            && let Err(error) = levels.enter(opened)
        {
            // The directory cannot be read: its entries are not counted.
            drop(error);
        }
    }
}

/// Opens the top directory. Links on the way to it are the caller's own, and are followed.
fn open_top(top: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(open(top, flags, Mode::empty())?)
}

fn open_file(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = statx(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::TYPE)?;
    match found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        true => Err(Errno::XDEV),
        false => openat(directory, name, flags, Mode::empty()),
    }
}

/// Returns whether an entry vanished, became something else, or is hidden below a mount: it is skipped.
fn is_another(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV)
}

/// Returns the type of an entry. Some file systems do not report it in directory listings.
fn kind(directory: BorrowedFd<'_>, entry: &rustix::fs::DirEntry) -> FileType {
    match entry.file_type() {
        FileType::Unknown => {
            let found = statx(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
            found.map_or(FileType::Unknown, |found| FileType::from_raw_mode(found.stx_mode.into()))
        }
        kind => kind,
    }
}
