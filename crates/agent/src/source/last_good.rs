//! The last good content of manifests, on disk: what runs while a file is broken, its directory cannot be read or its URL not
//! be reached, also after a restart of the agent.
//!
//! ```text
//! <state_dir>/manifests/<hash of the source's path or URL>/<file name>
//! ```

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{self, ErrorKind},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::files::whole;

/// The last good content of one source.
#[derive(Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    /// `source` is its path or URL.
    pub fn of(state_dir: &Path, source: &[u8]) -> Self {
        let hash = Sha256::digest(source);
        let name = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { directory: state_dir.join("manifests").join(name) }
    }

    /// Everything kept, by file name; `None` when this source was never read.
    pub fn load(&self) -> io::Result<Option<BTreeMap<OsString, Vec<u8>>>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let mut files = BTreeMap::new();
        for entry in entries {
            let entry = entry?;
            // A dot begins what a crash left half written.
            if !entry.file_name().as_bytes().starts_with(b".") {
                files.insert(entry.file_name(), fs::read(entry.path())?);
            }
        }
        Ok(Some(files))
    }

    /// Notes that the source has been read.
    pub fn begin(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    /// Keeps the content of a file.
    pub fn keep(&self, name: &OsStr, content: &[u8]) -> io::Result<()> {
        whole::write(&self.directory.join(name), content)
    }

    /// Forgets a file.
    pub fn forget(&self, name: &OsStr) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}
