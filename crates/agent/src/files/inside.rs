//! Paths that cannot lead out of a directory, whatever symbolic links a container puts there and whenever it does
//! (openat2(2), R-MNT-4).

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, open, openat, openat2};

/// Links that stay inside are followed; absolute ones, `..` above the root and the kernel's magic ones are not.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// Opens a directory as the root of such paths.
pub(crate) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens what is at `path` below `root`.
pub(crate) fn open_below(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let opened = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH);
    opened.map_err(|errno| match errno {
        rustix::io::Errno::XDEV => {
            io::Error::new(io::ErrorKind::PermissionDenied, "it leads out of the volume through a symbolic link")
        }
        errno => errno.into(),
    })
}

/// Opens a regular file below the directory `root` for reading.
pub(crate) fn open_file(root: &Path, path: &Path) -> io::Result<File> {
    // A FIFO must not make the agent wait.
    let opened = open_below(&self::root(root)?, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let file = File::from(opened);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
    }
}

/// Opens a directory below `root` that is reached through no link at all, for listing.
pub(crate) fn open_directory(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat2(root, path, flags, Mode::empty(), BENEATH.union(ResolveFlags::NO_SYMLINKS));
    opened.map_err(|errno| match errno {
        rustix::io::Errno::LOOP => io::ErrorKind::NotADirectory.into(),
        errno => errno.into(),
    })
}

/// What is found in a directory: open, since by name it could be another by now.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    Directory(&'a OwnedFd),
    /// A symbolic link, by its name in a directory.
    Link(&'a OwnedFd, &'a CStr),
    /// Anything else.
    File(&'a OwnedFd),
}

/// Visits a directory and everything in it. What is put there while this goes on cannot lead it elsewhere.
pub(crate) fn walk(top: &Path, mut visit: impl FnMut(Found<'_>) -> io::Result<()>) -> io::Result<()> {
    let root = root(top)?;
    let mut open = vec![PathBuf::from(".")];
    while let Some(directory) = open.pop() {
        let opened = match open_directory(&root, &directory) {
            // It went meanwhile, or is a link by now.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            opened => opened?,
        };
        for entry in Dir::read_from(&opened)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => open.push(directory.join(OsStr::from_bytes(name.to_bytes()))),
                FileType::Symlink => visit(Found::Link(&opened, name))?,
                _ => {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(&opened, name, flags, Mode::empty()) {
                        Ok(file) => visit(Found::File(&file))?,
                        Err(rustix::io::Errno::NOENT) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        visit(Found::Directory(&opened))?;
    }
    Ok(())
}
