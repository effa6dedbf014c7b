//! Checks that only root can read a file.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

/// Returns why a file is too exposed for secrets, e.g. `its mode is 0644`; `None` if only root can read it.
pub(super) fn exposure(entry: &Metadata) -> Option<String> {
    match (entry.mode() & 0o7777, entry.uid()) {
        (mode, 0) if mode & 0o077 == 0 => None,
        (mode, owner) if mode & 0o077 == 0 => Some(format!("it belongs to user {owner}")),
        (mode, _) => Some(format!("its mode is {mode:04o}")),
    }
}
