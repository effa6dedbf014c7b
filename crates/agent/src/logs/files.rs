//! Reads the files of one log. Rotated files carry the time of their rotation, e.g. `0.log.20261123-211530`; the
//! current file comes last.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use stanchion_untrusted::{Links, open};

use super::{
    entry::{BUFFER, Entry, Splitter, Stream},
    tail::{Position, Tail},
};

/// Reader of a log's entries: each once, in order, over all files, however often the log is rotated meanwhile.
///
/// It identifies files by inode. It holds the current file open and reads it to its end, whatever its name is by then.
#[derive(Debug)]
pub(super) struct LogFiles {
    path: PathBuf,
    /// Files to read, beginning with the one being read. The last is held open, so that its inode is not reused.
    parts: VecDeque<Part>,
    /// Number of files that have been read to their end.
    index: usize,
    /// Offset in the first file.
    at: u64,
    /// Offset in the last file at which reading ends; `None` when the log is followed.
    end: Option<u64>,
    splitter: Splitter,
    /// Position of the first wanted entry of each stream.
    from: [Position; 2],
    buffer: Box<[u8]>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    /// `true` if files between this one and the one before may be missing.
    is_after_gap: bool,
}

impl Part {
    fn open(&mut self) -> io::Result<&File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path, Links::Refuse)?,
        };
        Ok(self.file.insert(file))
    }
}

impl LogFiles {
    /// Opens a log at its oldest file. A log that is not followed ends where it ends now.
    ///
    /// # Errors
    /// There is no log, or its directory cannot be read.
    pub fn open(path: &Path, is_followed: bool) -> io::Result<Self> {
        let mut files = Self {
            path: path.to_owned(),
            parts: VecDeque::new(),
            index: 0,
            at: 0,
            end: None,
            splitter: Splitter::default(),
            from: [Position::default(); 2],
            buffer: vec![0; BUFFER].into_boxed_slice(),
        };
        if !files.find_new()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        if !is_followed && let Some(last) = files.parts.back_mut() {
            files.end = Some(last.open()?.metadata()?.len());
        }
        Ok(files)
    }

    /// Skips all but the last lines.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn skip_to_last(&mut self, lines: usize) -> io::Result<()> {
        let mut tail = Tail::new(lines);
        let last = self.parts.len().saturating_sub(1);
        for (index, part) in self.parts.iter_mut().enumerate().rev() {
            let file = match part.open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let length = file.metadata()?.len();
            let end = if index == last { self.end.unwrap_or(length).min(length) } else { length };
            if tail.read_file(file, index, end, index == last)? {
                break;
            }
            if index != last {
                // Opened again when it is read: there may be many files.
                part.file = None;
            }
        }
        self.from = tail.from();
        let first = self.from.into_iter().min().unwrap_or_default();
        self.parts.drain(..first.file.min(last));
        (self.index, self.at) = (first.file, first.at);
        Ok(())
    }

    /// Reads on, at most one buffer; returns `false` if there is nothing new.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read_next(&mut self, each: &mut impl FnMut(Entry<'_>)) -> io::Result<bool> {
        loop {
            let is_last = self.parts.len() == 1;
            let Some(part) = self.parts.front_mut() else {
                if !self.find_new()? {
                    return Ok(false);
                }
                continue;
            };
            if std::mem::take(&mut part.is_after_gap) {
                each(Entry::gap());
            }
            let file = match part.open() {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !is_last => {
                    // The file was removed before it was read; nothing is missing if nothing was read before.
                    let has_begun = self.at > 0 || self.index > 0;
                    self.next();
                    if let Some(next) = self.parts.front_mut() {
                        next.is_after_gap |= has_begun;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let wanted = match self.end.filter(|_| is_last) {
                Some(end) => usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(BUFFER),
                None => BUFFER,
            };
            let count = read_at(file, &mut self.buffer[..wanted], self.at)?;
            let (index, at, from) = (self.index, self.at, self.from);
            let mut wanted = |offset: usize, entry: Entry<'_>| {
                let position = Position { file: index, at: at + offset as u64 };
                if position >= from[entry.stream as usize] {
                    each(entry);
                }
            };
            let used = self.splitter.split(&self.buffer[..count], &mut wanted);
            if used > 0 {
                self.at += used as u64;
                return Ok(true);
            }
            if !is_last {
                // Nobody writes the file any more: it has been read again after its rotation was noticed.
                self.splitter.end(&self.buffer[..count], &mut wanted);
                self.next();
            } else if self.end.is_some() || !self.find_new()? {
                return Ok(false);
            }
        }
    }

    fn next(&mut self) {
        self.parts.pop_front();
        self.splitter = Splitter::default();
        self.index += 1;
        self.at = 0;
    }

    /// Finds the files after the last known one; returns `true` if there is more to read.
    fn find_new(&mut self) -> io::Result<bool> {
        let current = match open(&self.path, Links::Refuse) {
            Ok(file) => Some((file.metadata()?, file)),
            // The log is being rotated at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let known = self.parts.back().map(|last| last.inode);
        let own = current.as_ref().map(|(metadata, _)| metadata.ino());
        if let Some((metadata, _)) = current.as_ref().filter(|_| known.is_some() && own == known) {
            // Another program has truncated the file: it begins again.
            let is_cut = self.parts.len() == 1 && metadata.len() < self.at;
            if is_cut {
                (self.at, self.from, self.splitter) = (0, [Position::default(); 2], Splitter::default());
            }
            return Ok(is_cut);
        }
        let rotated = rotated(&self.path)?;
        let after = known.and_then(|known| rotated.iter().position(|(_, inode)| *inode == known));
        let mut is_after_gap = known.is_some() && after.is_none();
        let before = self.parts.len();
        for (path, inode) in rotated.into_iter().skip(after.map_or(0, |at| at + 1)) {
            // The file was rotated after it was opened; the next call finds the files that came after it.
            if Some(inode) == own {
                break;
            }
            self.parts.push_back(Part { path, file: None, inode, is_after_gap: std::mem::take(&mut is_after_gap) });
        }
        if let Some((metadata, file)) = current {
            let path = self.path.clone();
            self.parts.push_back(Part { path, file: Some(file), inode: metadata.ino(), is_after_gap });
        } else if let Some(last) = self.parts.back_mut()
            && let Err(error) = last.open()
        {
            tracing::debug!(path = %last.path.display(), %error, "a rotated log file is gone");
        }
        Ok(self.parts.len() > before)
    }
}

/// Returns the rotated files with their inodes, the oldest first.
fn rotated(path: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let entries = match fs::read_dir(directory) {
        // The pod is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let other = entry.file_name();
        let stamp = other.as_encoded_bytes().strip_prefix(name).and_then(|rest| rest.strip_prefix(b"."));
        if stamp.is_some_and(|stamp| !stamp.ends_with(b".gz") && !stamp.ends_with(b".tmp"))
            && let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            files.push((entry.path(), metadata.ino()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Streams are used as indices.
const _: () = assert!(Stream::Stdout as usize == 0 && Stream::Stderr as usize == 1);
