//! Checks of settings that backends for this node's runtimes share. What is wrong is told at the start, and not by the
//! first pod that fails.

use std::{fmt::Debug, path::Path};

use stanchion_runtime::{Error, ErrorKind, Result};

use crate::{cgroup::is_plain, names::is_identifier};

/// The error of a setting.
///
/// # Errors
/// Always: `Invalid`, naming the key, the value, and what was expected.
pub fn wrong(key: &str, value: &dyn Debug, expected: &str) -> Result<()> {
    Err(Error::new(ErrorKind::Invalid, format!("{key} = {value:?}: expected {expected}")))
}

/// `socket`: where a daemon listens.
///
/// # Errors
/// It is no absolute path.
pub fn socket(path: &Path, daemon: &str) -> Result<()> {
    match path.is_absolute() {
        true => Ok(()),
        false => wrong("socket", &path, &format!("the absolute path of {daemon}'s socket")),
    }
}

/// `namespace`: what keeps ours apart in the runtime.
///
/// # Errors
/// It cannot be a name there.
pub fn namespace(name: &str) -> Result<()> {
    match is_identifier(name) {
        true => Ok(()),
        false => wrong("namespace", &name, "at most 76 letters, digits and single . _ - between them"),
    }
}

/// `cgroup_root`: around the cgroups of all pods.
///
/// # Errors
/// It is no place below the root of a hierarchy.
pub fn cgroup_root(root: &str) -> Result<()> {
    let path = Path::new(root);
    match path.is_absolute() && is_plain(path) && path.file_name().is_some() {
        true => Ok(()),
        false => wrong("cgroup_root", &root, "an absolute path below the root, without .."),
    }
}

/// `log_max_size`, bytes, and `log_max_files`.
///
/// # Errors
/// One of them is 0.
pub fn log_limits(size: u64, files: u32) -> Result<()> {
    match (size, files) {
        (0, _) => wrong("log_max_size", &size, "a number of bytes above 0"),
        (_, 0) => wrong("log_max_files", &files, "a number above 0"),
        _ => Ok(()),
    }
}
