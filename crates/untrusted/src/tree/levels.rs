//! The way from the top of a tree to a directory in it, and back.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
};

/// Of a way down so many directories are kept open at its top, and at its end: usual trees are not deeper than both. A process may
/// have 1,024 descriptors, and several trees are gone through at once.
const ENDS: usize = 16;
/// The directories from the top to the one that is read. Of those in the middle only a small note is kept each: they are found
/// again through `..`.
#[derive(Debug)]
pub(super) struct Levels {
    levels: Vec<Level>,
    has_lost: bool,
}

/// A directory that is being read.
#[derive(Debug)]
pub(super) struct Level {
    identity: Identity,
    /// Where reading goes on (telldir(3)).
    at: i64,
    open: Option<Dir>,
    /// How removing it stands.
    pub rounds: u16,
    pub has_removed: bool,
    pub is_stuck: bool,
}

/// Tells a directory from all others; the time of its birth tells it from an earlier one with its inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Identity {
    fn of(directory: impl AsFd) -> io::Result<Self> {
        let found = statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    }
}

impl Levels {
    /// Begins at the top.
    pub fn below(top: OwnedFd) -> io::Result<Self> {
        let mut levels = Self { levels: Vec::new(), has_lost: false };
        levels.enter(top)?;
        Ok(levels)
    }

    /// Goes down into a directory.
    pub fn enter(&mut self, directory: OwnedFd) -> io::Result<()> {
        let identity = Identity::of(&directory)?;
        let open = Some(Dir::new(directory)?);
        self.levels.push(Level { identity, at: 0, open, rounds: 0, has_removed: false, is_stuck: false });
        if let Some(middle) = self.levels.len().checked_sub(ENDS + 1).filter(|middle| *middle >= ENDS)
            && let Some(level) = self.levels.get_mut(middle)
        {
            level.open = None;
        }
        Ok(())
    }

    /// The directory that is read.
    pub fn current(&mut self) -> &mut Level {
        self.levels.last_mut().expect("there is a top until it is left")
    }

    /// Its descriptor.
    pub fn directory(&self) -> BorrowedFd<'_> {
        let open = self.levels.last().and_then(|level| level.open.as_ref()).expect("the last one is always open");
        open.fd().expect("a directory that is read has a descriptor")
    }

    /// The next entry of the directory.
    pub fn next(&mut self) -> Option<io::Result<DirEntry>> {
        let level = self.current();
        let open = level.open.as_mut()?;
        loop {
            match open.read()? {
                Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Ok(entry) => {
                    level.at = entry.offset();
                    return Some(Ok(entry));
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }

    /// Reads the directory from its beginning again.
    pub fn rewind(&mut self) {
        let level = self.current();
        level.at = 0;
        if let Some(open) = &mut level.open {
            open.rewind();
        }
    }

    /// Goes up to the directory that this one was found in, or to the nearest above that is open, if this one was moved away.
    /// Answers what was left, and whether it was below the directory that is read now; `None` after the top.
    pub fn leave(&mut self) -> Option<(Level, bool)> {
        let left = self.levels.pop()?;
        let parent = self.levels.last_mut()?;
        if parent.open.is_some() {
            return Some((left, true));
        }
        if let Some(found) = left.open.as_ref().and_then(|child| parent.find_above(child).ok()) {
            parent.open = Some(found);
            return Some((left, true));
        }
        self.has_lost = true;
        while self.levels.last().is_some_and(|level| level.open.is_none()) {
            self.levels.pop();
        }
        Some((left, false))
    }

    /// Whether directories were moved away before everything in them was seen.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }
}

impl Level {
    /// Opens this directory as the one above `child`, if it still is, and goes on where it was.
    fn find_above(&self, child: &Dir) -> io::Result<Dir> {
        let above = openat2(child.fd()?, c"..", flags(), Mode::empty(), ResolveFlags::NO_XDEV)?;
        if Identity::of(&above)? != self.identity {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut open = Dir::new(above)?;
        open.seek(self.at)?;
        Ok(open)
    }
}

/// Opens a directory in another, unless it is a link or something is mounted on it.
pub(super) fn open_child(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat2(directory, name, flags(), Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC
}
