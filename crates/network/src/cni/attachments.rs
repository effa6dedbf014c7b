//! Data for DEL, kept from before ADD until after DEL: in between, agent and node may restart, and the conflist may be
//! edited. It outlives a reboot because the plugins' own records do (`/var/lib/cni`).
//!
//! ```text
//! <state_dir>/cni/<sandbox>.json
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanchion_runtime::PortMapping;
use stanchion_untrusted::{Links, make_directory, read};

use super::conflist::Conflist;
use crate::limits;

/// Sandbox that the plugins have attached, or were about to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Attachment {
    pub list: Conflist,
    /// `CNI_ARGS` of the calls.
    pub arguments: String,
    pub ports: Vec<PortMapping>,
    /// Result of the last plugin; `None` until then.
    pub result: Option<Value>,
}

/// All attachments.
#[derive(Clone, Debug)]
pub(super) struct Attachments {
    directory: PathBuf,
}

impl Attachments {
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes an attachment as a draft and renames it, so that the file is never incomplete.
    pub fn write(&self, id: &str, attachment: &Attachment) -> io::Result<()> {
        make_directory(&self.directory)?;
        let draft = self.draft(id);
        // For its owner only: a list may contain a plugin's credentials.
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(attachment)?)?;
        fs::rename(&draft, self.path(id))
    }

    /// Returns the attachment of a sandbox, if there is one.
    pub fn read(&self, id: &str) -> io::Result<Option<Attachment>> {
        match read(self.path(id), Links::Refuse, limits::OWN_FILE) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn remove(&self, id: &str) -> io::Result<()> {
        for path in [self.draft(id), self.path(id)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns every sandbox that has an attachment.
    pub fn holders(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")).map(str::to_owned).collect())
    }

    fn draft(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.draft"))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}
