//! The last good content of manifests, on disk. It is in force while a file is broken, its directory cannot be read or
//! its URL cannot be reached, also after a restart of the agent.
//!
//! ```text
//! <state_dir>/manifests/<hash of the source's path or URL>/<file name>
//! <state_dir>/manifests/<hash of the source's path or URL>/.directory     identity of the files' directory
//! ```

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use stanchion_untrusted::{Links, make_directory, read};

use super::directory::Directory;
use crate::{files::whole, limits};

/// Name of the file with the identity of the directory that held the manifests.
const DIRECTORY: &str = ".directory";

/// The last good content of one source.
#[derive(Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    /// Creates the store of the source with this path or URL.
    pub fn of(state_dir: &Path, source: &[u8]) -> Self {
        let name = hex::encode(&Sha256::digest(source)[..16]);
        Self { directory: state_dir.join("manifests").join(name) }
    }

    /// Loads all kept contents by file name; `None` if this source was never read. A name without content stands for
    /// content that could not be kept, or cannot be read now.
    pub fn load(&self) -> io::Result<Option<BTreeMap<OsString, Option<Vec<u8>>>>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            // Names with a leading dot are drafts that a crash left, and files that are no manifests.
            if !entry.file_name().as_bytes().starts_with(b".") {
                let content = read(entry.path(), Links::Refuse, limits::OWN_FILE).unwrap_or_else(|error| {
                    tracing::warn!(path = %entry.path().display(), %error, "a last good manifest cannot be read");
                    Vec::new()
                });
                files.insert(entry.file_name(), Some(content).filter(|content| !content.is_empty()));
            }
        }
        Ok(Some(files))
    }

    /// Returns the identity of the directory that held the manifests last, if it was kept.
    pub fn directory(&self) -> Option<Directory> {
        let saved = read(self.directory.join(DIRECTORY), Links::Refuse, limits::OWN_FILE).ok()?;
        serde_json::from_slice(&saved).ok()
    }

    /// Keeps the identity of the directory that holds the manifests.
    pub fn keep_directory(&self, directory: &Directory) -> io::Result<()> {
        whole::write(&self.directory.join(DIRECTORY), &serde_json::to_vec(directory)?)
    }

    /// Creates the store on disk: its presence says that the source has been read.
    pub fn begin(&self) -> io::Result<()> {
        make_directory(&self.directory)
    }

    /// Keeps the content of a file. If that fails, it forgets the file's earlier content, which would come in force
    /// again otherwise.
    pub fn keep(&self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        let path = self.directory.join(name);
        // An empty file means that the content was lost.
        let content = if content.is_empty() { b"\n" } else { content };
        let Err(error) = whole::write(&path, content) else { return Ok(()) };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags.bits().cast_signed());
        if let Err(error) = options.open(&path) {
            tracing::warn!(path = %path.display(), %error, "an older manifest that was kept cannot be emptied");
            return Err(error);
        }
        // The old content, which is emptied now, may have filled the disk.
        whole::write(&path, content).map_err(|_| error)
    }

    /// Forgets the content of a file.
    pub fn forget(&self, name: &OsStr) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}
