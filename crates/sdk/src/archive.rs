//! Image archives: tar, plain or compressed with gzip, bzip2, lz4 or zstd. A few compressed bytes can expand to very
//! many, so there are bounds on the bytes read at once, kept and written.

use std::{
    cell::Cell,
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    rc::Rc,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::statvfs::statvfs;
use sha2::{Digest, Sha256};
use stanchion_untrusted::{Limit, Links, TooLarge, make_directory, open, read_from};

use crate::limits;

/// One entry of an archive.
pub type Entry<'a> = tar::Entry<'a, Box<dyn Read>>;

/// Calls `visit` with every entry and its name, without a leading `./`. `room` is the most bytes that all entries may
/// have together; `place` is the directory with that room, for the error. Blocks.
///
/// # Errors
/// The file is no archive, an entry exceeds a bound (`FileTooLarge`), there is no room (`StorageFull`), or `visit`
/// fails.
pub fn each(
    file: File,
    room: u64,
    place: &Path,
    mut visit: impl FnMut(&str, &mut Entry<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let allowed = Rc::new(Cell::new(limits::HEADER.most));
    let metered: Box<dyn Read> = Box::new(Metered { from: decompressed(file)?, allowed: Rc::clone(&allowed) });
    let mut archive = tar::Archive::new(metered);
    let (mut count, mut total) = (0, 0_u64);
    // The iterator skips the part of an entry that `visit` has not read, within the allowance.
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > limits::ARCHIVE_ENTRIES.most {
            let Limit { name, most } = limits::ARCHIVE_ENTRIES;
            let message = format!("the archive has more than {most} entries (limit {name:?})");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let is_sparse = entry.header().entry_type().is_gnu_sparse();
        let size = if is_sparse { entry.header().entry_size()? } else { entry.size() };
        total = total.saturating_add(size);
        if total > room {
            let place = place.display();
            let message =
                format!("no space left on device: it holds more than the {room} bytes that {place} has room for");
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let name = entry.path_bytes();
        limits::NAME.check(name.len() as u64)?;
        let name = String::from_utf8_lossy(bare(&name)).into_owned();
        allowed.set(size);
        visit(&name, &mut entry)?;
        allowed.set(allowed.get().saturating_add(limits::HEADER.most));
    }
    Ok(())
}

/// Returns a name without the `./` that some programs write before each.
fn bare(mut name: &[u8]) -> &[u8] {
    while let Some(rest) = name.strip_prefix(b"./") {
        name = rest;
    }
    name
}

/// Reader that fails beyond its allowance, because the tar reader holds long names and extensions in memory, however
/// long they are.
struct Metered {
    from: Box<dyn Read>,
    allowed: Rc<Cell<u64>>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowed.get();
        if allowed == 0 && !into.is_empty() {
            return Err(TooLarge(limits::HEADER).into());
        }
        let most = usize::try_from(allowed).unwrap_or(usize::MAX).min(into.len());
        let length = self.from.read(&mut into[..most])?;
        self.allowed.set(allowed - length as u64);
        Ok(length)
    }
}

/// Compression of a file, recognized by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No compression.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// lz4, frame format.
    Lz4,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Returns the compression of a file with these first bytes.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    fn of_file(file: &File) -> io::Result<Self> {
        let mut start = [0; 4];
        let length = file.read_at(&mut start, 0)?;
        Ok(Self::of(start.get(..length).unwrap_or_default()))
    }
}

fn decompressed(mut file: File) -> io::Result<Box<dyn Read>> {
    let compression = Compression::of_file(&file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(match compression {
        Compression::None => Box::new(BufReader::new(file)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(BufReader::new(file))),
        Compression::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(BufReader::new(file))),
        Compression::Zstd => Box::new(zstd::Decoder::new(file)?),
    })
}

/// Opens an archive. The path may be a symbolic link, which an administrator may have made.
///
/// # Errors
/// As [`open`].
pub fn open_archive(path: &Path) -> io::Result<File> {
    open(path, Links::Follow)
}

/// Files of an archive, unpacked into one file without a name, which disappears with this value. Files of a plain
/// archive are read in place.
#[derive(Debug)]
pub struct Unpacked {
    data: File,
    files: HashMap<String, Part>,
    /// Links to files of the archive, by name.
    links: HashMap<String, String>,
    /// Total size of the files that `read` has read.
    read: AtomicU64,
    /// Digests of files, since many images of an archive can name one layer.
    digests: Mutex<HashMap<Part, String>>,
}

/// Position of a file in the unpacked data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Offset of its first byte.
    pub at: u64,
    /// Size of the file, bytes.
    pub size: u64,
}

impl Unpacked {
    /// Unpacks an archive into `directory`, which is created if needed; a tenth of its file system stays free. Blocks.
    ///
    /// # Errors
    /// As [`each`].
    pub fn of(path: &Path, directory: &Path) -> io::Result<Self> {
        let archive = open_archive(path)?;
        let is_plain = Compression::of_file(&archive)? == Compression::None;
        let (mut data, room) = match is_plain {
            // A plain archive needs no further space.
            true => (archive.try_clone()?, u64::MAX),
            false => {
                make_directory(directory)?;
                (tempfile::tempfile_in(directory)?, room(directory)?)
            }
        };
        let (mut files, mut links, mut end) = (HashMap::new(), HashMap::new(), 0);
        each(archive, room, directory, |name, entry| {
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let size = entry.size();
                let at = match is_plain {
                    true => entry.raw_file_position(),
                    false => {
                        if io::copy(entry, &mut data)? != size {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        end
                    }
                };
                end += size;
                files.insert(name.to_owned(), Part { at, size });
            } else if kind.is_symlink() || kind.is_hard_link() {
                // Old versions of `docker save` link equal layers to each other.
                if let Some(to) = entry.link_name_bytes() {
                    limits::NAME.check(to.len() as u64)?;
                    let to = String::from_utf8_lossy(&to).into_owned();
                    let from =
                        if kind.is_symlink() { name.rsplit_once('/').map_or("", |(above, _)| above) } else { "" };
                    links.insert(name.to_owned(), joined(from, &to));
                }
            }
            Ok(())
        })?;
        data.flush()?;
        Ok(Self { data, files, links, read: AtomicU64::new(0), digests: Mutex::default() })
    }

    /// Returns whether a file, or a link to a file, has that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.part(name).is_ok()
    }

    /// Returns the position of the file of that name, or of the file that a link of that name leads to.
    ///
    /// # Errors
    /// `NotFound`: the archive lacks it.
    pub fn part(&self, name: &str) -> io::Result<Part> {
        let found = self.files.get(name).or_else(|| self.files.get(self.links.get(name)?));
        let lacks =
            || io::Error::new(io::ErrorKind::NotFound, format!("the archive lacks {}", limits::SHOWN.cut(name)));
        found.copied().ok_or_else(lacks)
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// As [`part`](Self::part); it is larger than `limit`, or the files read so far exceed
    /// [`limits::ARCHIVE_DOCUMENTS`] together (`FileTooLarge`); it cannot be read.
    pub fn read(&self, name: &str, limit: Limit) -> io::Result<Vec<u8>> {
        let part = self.part(name)?;
        limit.check(part.size)?;
        let before = self.read.fetch_add(part.size, Ordering::Relaxed);
        limits::ARCHIVE_DOCUMENTS.check(before.saturating_add(part.size))?;
        read_from(self.reader(part), limit)
    }

    /// Returns the digest of a file, `sha256:…`. Each file is hashed once, however many images name it. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn digest(&self, part: Part) -> io::Result<String> {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = digests.get(&part) {
            return Ok(digest.clone());
        }
        let mut sum = Sha256::new();
        io::copy(&mut self.reader(part), &mut sum)?;
        let digest = format!("sha256:{}", hex::encode(sum.finalize()));
        digests.insert(part, digest.clone());
        Ok(digest)
    }

    /// Returns a reader of a file, from its start.
    #[must_use]
    pub fn reader(&self, part: Part) -> Reader<'_> {
        Reader { data: &self.data, part }
    }
}

/// Reader of one file of an archive.
#[derive(Debug)]
pub struct Reader<'a> {
    data: &'a File,
    /// Remaining part of the file.
    part: Part,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.part.size).unwrap_or(usize::MAX).min(into.len());
        let length = self.data.read_at(&mut into[..most], self.part.at)?;
        self.part = Part { at: self.part.at + length as u64, size: self.part.size - length as u64 };
        Ok(length)
    }
}

/// Returns the number of bytes that may be written to a directory's file system so that a tenth of it stays free.
/// Blocks.
///
/// # Errors
/// As statvfs(3).
pub fn room(directory: &Path) -> io::Result<u64> {
    let found = statvfs(directory)?;
    let size = found.fragment_size();
    let (capacity, available) = (found.blocks() * size, found.blocks_available() * size);
    Ok(available.saturating_sub(capacity / 10))
}

/// Returns the name that a link in a directory of the archive leads to.
fn joined(directory: &str, to: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests;
