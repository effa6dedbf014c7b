//! Opens and reads regular files.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open as open_path, openat};

use crate::{Limit, TooLarge};

/// Treatment of a symbolic link at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// The link is followed: in the administrator's directories, where `file -> ../release-7/file` is common.
    Follow,
    /// The link is refused: wherever a container or an image can create one.
    Refuse,
}

/// Creates a directory and its missing parents, with access for root only; nobody else can put anything into it.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: impl AsRef<Path>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a regular file for reading.
///
/// Nothing but a regular file is ever opened, not even for a moment: opening a FIFO can wait for ever, opening a device can
/// rewind a tape.
///
/// # Errors
/// The file does not exist, is not a regular file (`InvalidInput`), is a link that is refused, or cannot be read.
pub fn open(path: impl AsRef<Path>, links: Links) -> io::Result<File> {
    open_at(CWD, path, links)
}

/// Opens a regular file below `directory` for reading; otherwise as [`open`]. Links in the middle of `path` are
/// followed: pass a single name where somebody else can create them.
///
/// # Errors
/// As [`open`].
pub fn open_at(directory: impl AsFd, path: impl AsRef<Path>, links: Links) -> io::Result<File> {
    let follow = if links == Links::Refuse { OFlags::NOFOLLOW } else { OFlags::empty() };
    let found = openat(directory, path.as_ref(), OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty())?;
    open_found(&found)
}

/// Opens the file of an `O_PATH` descriptor for reading, if it is a regular file.
///
/// # Errors
/// As [`open`].
pub fn open_found(found: &OwnedFd) -> io::Result<File> {
    match FileType::from_raw_mode(fstat(found)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(refused("it is a symbolic link")),
        other => return Err(refused(kind(other))),
    }
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open_path(again, flags, Mode::empty())?))
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Returns the error text for a file that is not a regular one.
fn kind(found: FileType) -> &'static str {
    match found {
        FileType::Directory => "it is a directory, not a regular file",
        FileType::Fifo => "it is a FIFO, not a regular file",
        FileType::Socket => "it is a socket, not a regular file",
        FileType::CharacterDevice | FileType::BlockDevice => "it is a device, not a regular file",
        _ => "it is not a regular file",
    }
}

/// Reads a whole regular file; refuses one that is larger than the limit.
///
/// # Errors
/// As [`open`]; [`TooLarge`] as `FileTooLarge`.
pub fn read(path: impl AsRef<Path>, links: Links, limit: Limit) -> io::Result<Vec<u8>> {
    read_from(open(path, links)?, limit)
}

/// Reads the first bytes of a regular file, as many as the limit allows, and leaves the rest.
///
/// # Errors
/// As [`open`].
pub fn read_start(path: impl AsRef<Path>, links: Links, limit: Limit) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, links)?.take(limit.most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Limit of a kernel file in `/proc` or `/sys`. The longest is the list of mounts, on nodes with very many pods; a
/// longer file counts as unreadable.
pub const KERNEL_FILE: Limit = Limit::new("file of the kernel", 64 << 20);

/// Reads a kernel file in `/proc` or `/sys` as text. Names of processes, mounts and cgroups in it can have any bytes;
/// bytes that are not UTF-8 are replaced.
///
/// # Errors
/// As [`read`].
pub fn read_kernel(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = read(path, Links::Follow, KERNEL_FILE)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a whole regular file that must be UTF-8.
///
/// # Errors
/// As [`read`]; `InvalidData` when it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, links: Links, limit: Limit) -> io::Result<String> {
    let bytes = read(path, links, limit)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads `from` to its end; refuses more than the limit, and holds at most one byte more than that.
///
/// # Errors
/// Reading fails; [`TooLarge`] as `FileTooLarge`.
pub fn read_from(from: impl Read, limit: Limit) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() > limit.size() {
        true => Err(TooLarge(limit).into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, os::unix::fs::symlink};

    use rustix::fs::{FileType, Mode, mknodat};

    use super::*;

    const SMALL: Limit = Limit::new("test file", 8);

    #[test]
    fn a_file_is_read_up_to_its_limit_and_a_larger_one_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, b"\xff1234567").expect("written");
        assert_eq!(read(&path, Links::Refuse, SMALL).expect("it fits"), b"\xff1234567");
        assert_eq!(read_text(&path, Links::Refuse, SMALL).expect_err("no text").kind(), ErrorKind::InvalidData);
        File::options().write(true).open(&path).expect("opened").set_len(1 << 40).expect("sparse");
        let error = read(&path, Links::Refuse, SMALL).expect_err("it is a terabyte");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("limit \"test file\""), "{error}");
        assert_eq!(read_start(&path, Links::Refuse, SMALL).expect("its start"), b"\xff1234567");
    }

    #[test]
    fn links_are_followed_only_where_that_is_asked_for() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("file"), "it").expect("written");
        let link = dir.path().join("link");
        symlink("file", &link).expect("a link");
        assert_eq!(read(&link, Links::Follow, SMALL).expect("followed"), b"it");
        let error = read(&link, Links::Refuse, SMALL).expect_err("refused");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
        for (path, what) in
            [(fifo.as_path(), "a FIFO"), (dir.path(), "a directory"), (Path::new("/dev/null"), "a device")]
        {
            let error = read(path, Links::Follow, SMALL).expect_err("no file");
            assert!(error.to_string().contains(what), "{}: {error}", path.display());
        }
    }

    #[test]
    fn files_of_the_kernel_are_read() {
        let id = read_kernel("/proc/sys/kernel/random/boot_id").expect("it is there");
        assert_eq!(id.trim().len(), 36, "{id}");
    }
}
