//! Files of the agent's own that are there whole or not at all, and for root only.

use std::{
    io::{self, Write},
    path::Path,
};

use tempfile::NamedTempFile;

/// Writes a file, or replaces it. A power cut may leave it empty.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    persist(draft(path, content)?, path)
}

/// The same, and a power cut leaves what was there or all of this.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft(path, content)?;
    draft.as_file().sync_all()?;
    persist(draft, path)
}

/// Beside the file, under a name that nobody reads; only its owner may.
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
