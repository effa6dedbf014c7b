//! Writes the agent's own files, whole or not at all and for root only, and files that containers have mounted.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use stanchion_untrusted::{Limit, Links, read, tree};
use tempfile::NamedTempFile;

/// Writes a file, or replaces it. A power cut may leave it empty.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    persist(draft(path, content)?, path)
}

/// Writes a file, or replaces it. A power cut leaves the old content or all of the new.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft(path, content)?;
    draft.as_file().sync_all()?;
    persist(draft, path)
}

/// Writes a file that containers have mounted and can write too: in place, and only if its content differs.
pub(crate) fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let limit = Limit::new("file that is compared", content.len() as u64);
    match read(path, Links::Refuse, limit) {
        Ok(found) if found == content => return Ok(()),
        // No container has anything but a regular file mounted.
        Err(error) if error.kind() == ErrorKind::InvalidInput => tree::remove(path)?,
        _ => {}
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o644).custom_flags(flags.bits().cast_signed());
    let mut file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    file.set_len(0)?;
    file.write_all(content)
}

/// Writes a draft beside the file, for its owner only and under a name that nobody reads.
fn draft(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut draft = tempfile::Builder::new().prefix(".").tempfile_in(directory)?;
    draft.write_all(content)?;
    Ok(draft)
}

fn persist(draft: NamedTempFile, path: &Path) -> io::Result<()> {
    draft.persist(path)?;
    Ok(())
}
