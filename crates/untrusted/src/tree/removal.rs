//! Removes a tree.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, open, readlink, unlinkat},
    io::Errno,
};

use super::levels::{Levels, open_child};
use crate::Limit;

/// Largest number of times that a directory is read until it is empty. More than two are needed only if somebody still
/// writes to it, or if the file system loses its position when entries are removed.
const ROUNDS: u16 = 64;
/// Limit of a path in a message: a container can make a path as long as it likes.
const PATH: Limit = Limit::new("path in a message", 512);

/// Removes a file, or a directory and everything in it. An entry that is gone already counts as removed.
///
/// Mounts in the tree or at its top stay. An entry that cannot be removed stays, and everything else is removed.
///
/// # Errors
/// Something cannot be removed: the error names the first such entry. `ResourceBusy` means that something is mounted on
/// it.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => remove_at(parent, Path::new(name)),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes the entry `name` of the directory `parent`; otherwise as [`remove`].
///
/// # Errors
/// As [`remove`].
pub fn remove_at(parent: impl AsFd, name: &Path) -> io::Result<()> {
    let (parent, name) = (parent.as_fd(), CString::new(name.as_os_str().as_bytes())?);
    if name.as_bytes().contains(&b'/') || matches!(name.as_bytes(), b"" | b"." | b"..") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a single file name"));
    }
    let failed = |error| failure(parent, &name, error);
    for _ in 0..ROUNDS {
        if unlink(parent, &name, FileType::Directory).map_err(failed)? {
            return Ok(());
        }
        match open_child(parent, &name) {
            Ok(top) => Removal { levels: Levels::below(top)?, failed: None }.run()?,
            // The entry has changed meanwhile: try again.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(Errno::NOTEMPTY))
}

struct Removal {
    levels: Levels,
    /// Error of the first entry that could not be removed.
    failed: Option<io::Error>,
}

impl Removal {
    /// Empties the directory at the top.
    fn run(mut self) -> io::Result<()> {
        loop {
            match self.levels.next() {
                Some(Ok(entry)) => self.remove(entry.file_name(), entry.file_type()),
                Some(Err(error)) => {
                    self.levels.current().is_stuck = true;
                    self.failed.get_or_insert(error);
                }
                None if self.levels.current().begins_again() => self.levels.rewind(),
                None => {
                    let Some((left, is_below)) = self.levels.leave() else { break };
                    let above = self.levels.current();
                    // After a directory was moved away, the one above is read again.
                    above.has_removed |= !is_below || !left.is_stuck;
                    above.is_stuck |= is_below && left.is_stuck;
                }
            }
        }
        self.failed.map_or(Ok(()), Err)
    }

    fn remove(&mut self, name: &CStr, kind: FileType) {
        let current = self.levels.current();
        let was_tried = current.is_stuck && current.rounds > 0;
        let directory = self.levels.directory();
        let error = match unlink(directory, name, kind) {
            Ok(true) => return self.levels.current().has_removed = true,
            // An earlier round has failed to remove something in it.
            Ok(false) if was_tried => return,
            Ok(false) => match open_child(directory, name) {
                Ok(child) => match self.levels.enter(child) {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    return self.levels.current().has_removed = true;
                }
                Err(error) => failure(directory, name, error),
            },
            Err(error) => failure(directory, name, error),
        };
        self.levels.current().is_stuck = true;
        self.failed.get_or_insert(error);
    }
}

impl super::levels::Level {
    /// Returns whether the directory must be read once more: directories that were emptied must be removed, and reading
    /// may have skipped entries while others were removed.
    fn begins_again(&mut self) -> bool {
        self.rounds += 1;
        std::mem::take(&mut self.has_removed) && self.rounds < ROUNDS
    }
}

/// Removes an entry, whatever its type is by now. Returns `true` if it is gone; a directory that is not empty stays.
fn unlink(directory: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<bool, Errno> {
    let as_file = || unlinkat(directory, name, AtFlags::empty());
    let as_directory = || unlinkat(directory, name, AtFlags::REMOVEDIR);
    let done = match kind {
        FileType::Directory => match as_directory() {
            Err(Errno::NOTDIR) => as_file(),
            done => done,
        },
        _ => match as_file() {
            // The entry is a directory, or a file that must not be removed.
            Err(error @ (Errno::ISDIR | Errno::PERM)) => match as_directory() {
                Err(Errno::NOTDIR) => Err(error),
                done => done,
            },
            done => done,
        },
    };
    match done {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn failure(directory: BorrowedFd<'_>, name: &CStr, error: Errno) -> io::Error {
    let above = readlink(format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new());
    // The directory may be deeper than a path can be long.
    let above = above.map_or_else(|_| "…".to_owned(), |above| above.to_string_lossy().into_owned());
    let path = PATH.cut(&above).into_owned();
    let name = name.to_string_lossy();
    match error {
        Errno::BUSY | Errno::XDEV => {
            let message = format!("something is mounted on {name:?} in {path:?}: unmount it");
            io::Error::new(io::ErrorKind::ResourceBusy, message)
        }
        error => {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("removing {name:?} in {path:?}: {error}"))
        }
    }
}
