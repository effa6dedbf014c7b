//! Goes down from the top of a tree to a directory in it, and back up.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, DirEntry, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx},
    io::Errno,
};

/// Number of directories that are kept open at the top of the way down, and again at its end: usual trees are not
/// deeper than both. A process may have 1,024 descriptors, and it walks several trees at once.
const ENDS: usize = 16;
/// Directories from the top to the one being read. Those in the middle are closed, and found again through `..`.
#[derive(Debug)]
pub(super) struct Levels {
    levels: Vec<Level>,
    has_lost: bool,
}

/// Directory on the way down.
#[derive(Debug)]
pub(super) struct Level {
    identity: Identity,
    /// Position where reading goes on (telldir(3)).
    at: i64,
    open: Option<Dir>,
    /// Number of times that a removal has read the directory to its end.
    pub rounds: u16,
    pub has_removed: bool,
    pub is_stuck: bool,
}

/// Identity of a directory. The birth time tells it from an earlier one with the same inode number.
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
    /// Starts at the top.
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

    /// Returns the directory being read.
    pub fn current(&mut self) -> &mut Level {
        self.levels.last_mut().expect("there is a top until it is left")
    }

    /// Returns the descriptor of the directory being read.
    pub fn directory(&self) -> BorrowedFd<'_> {
        let open = self.levels.last().and_then(|level| level.open.as_ref()).expect("the last one is always open");
        open.fd().expect("a directory that is read has a descriptor")
    }

    /// Returns the next entry of the directory.
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

    /// Goes up to the parent, or, if this directory was moved away, to the nearest one above that is open. Returns the
    /// directory that was left, and whether it was below the directory being read now; `None` after the top.
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

    /// Returns whether directories were moved away before everything in them was seen.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }
}

impl Level {
    /// Reopens this directory as the parent of `child`, if it still is, and goes on reading where it stopped.
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

/// Opens a directory in another, unless it is a link or a mount point.
pub(super) fn open_child(directory: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat2(directory, name, flags(), Mode::empty(), ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS)
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC
}
