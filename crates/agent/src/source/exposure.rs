//! Who else can read a file.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Why a file is none for secrets, e.g. `its mode is 0644`; `None` says that only root can read it.
pub(super) fn exposure(entry: &Metadata) -> Option<String> {
    match (entry.mode() & 0o7777, entry.uid()) {
        (mode, 0) if mode & 0o077 == 0 => None,
        (mode, owner) if mode & 0o077 == 0 => Some(format!("it belongs to user {owner}")),
        (mode, _) => Some(format!("its mode is {mode:04o}")),
    }
}
