//! Common settings of backends for this node's runtimes: their defaults and checks. Mistakes are reported at the start,
//! and not by the first pod that fails.
//!
//! A common struct would have to be flattened into each backend's own, and serde would then not list the known keys in
//! the error about an unknown one.

use std::{fmt::Debug, path::Path};

use stanchion_runtime::{Error, ErrorKind, Result};

use crate::{cgroup::is_plain, names::is_identifier};

/// Default of `namespace`.
pub const NAMESPACE: &str = "stanchion";
/// Default of `cgroup_root`.
pub const CGROUP_ROOT: &str = "/stanchion";
/// Default of `log_max_size`, bytes.
pub const LOG_MAX_SIZE: u64 = 10 << 20;
/// Default of `log_max_files`.
pub const LOG_MAX_FILES: u32 = 5;

/// Returns the error of a setting.
///
/// # Errors
/// Always: `Invalid`, naming the key, the value, and what was expected.
pub fn wrong(key: &str, value: &dyn Debug, expected: &str) -> Result<()> {
    Err(Error::new(ErrorKind::Invalid, format!("{key} = {value:?}: expected {expected}")))
}

/// Checks `registry."host".identity_token`, which excludes a password.
///
/// # Errors
/// The token is empty, or there is a password too.
pub fn identity_token(host: &str, token: Option<&str>, has_password: bool) -> Result<()> {
    // Errors never contain the token (I10).
    match token {
        Some("") => wrong(&format!("registry.{host:?}.identity_token"), &"", "a token"),
        Some(_) if has_password => {
            let message = format!("registry.{host:?} has a password and an identity_token: expected one of them");
            Err(Error::new(ErrorKind::Invalid, message))
        }
        _ => Ok(()),
    }
}

/// Checks `socket`: the path of a daemon's socket.
///
/// # Errors
/// The path is not absolute.
pub fn socket(path: &Path, daemon: &str) -> Result<()> {
    match path.is_absolute() {
        true => Ok(()),
        false => wrong("socket", &path, &format!("the absolute path of {daemon}'s socket")),
    }
}

/// Checks `namespace`: the name that separates Stanchion's containers from others in the runtime.
///
/// # Errors
/// The runtime does not accept the name.
pub fn namespace(name: &str) -> Result<()> {
    match is_identifier(name) {
        true => Ok(()),
        false => wrong("namespace", &name, "at most 76 letters, digits and single . _ - between them"),
    }
}

/// Checks `cgroup_root`: the parent of all pods' cgroups.
///
/// # Errors
/// The path is not below the root of a hierarchy.
pub fn cgroup_root(root: &str) -> Result<()> {
    let path = Path::new(root);
    match path.is_absolute() && is_plain(path) && path.file_name().is_some() {
        true => Ok(()),
        false => wrong("cgroup_root", &root, "an absolute path below the root, without .."),
    }
}

/// Checks `log_max_size`, bytes, and `log_max_files`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_the_key_the_value_and_what_is_expected() {
        let said = |checked: Result<()>| checked.expect_err("it is wrong").message().to_owned();
        let relative = said(socket(Path::new("a.sock"), "containerd"));
        assert_eq!(relative, "socket = \"a.sock\": expected the absolute path of containerd's socket");
        for root in ["", "/", "stanchion", "/a/../b"] {
            assert!(said(cgroup_root(root)).starts_with("cgroup_root"), "{root}");
        }
        for name in ["", "a b"] {
            assert!(said(namespace(name)).starts_with("namespace"), "{name}");
        }
        assert!(said(log_limits(0, 1)).starts_with("log_max_size"));
        assert!(said(log_limits(1, 0)).starts_with("log_max_files"));
        assert!(said(identity_token("h", Some(""), false)).starts_with("registry.\"h\".identity_token"));
        let both = said(identity_token("h", Some("secret"), true));
        assert!(both.starts_with("registry.\"h\" has a password") && !both.contains("secret"), "I10: {both}");
        socket(Path::new("/run/a.sock"), "containerd").expect("right");
        identity_token("h", None, true).and_then(|()| identity_token("h", Some("t"), false)).expect("right");
        cgroup_root(CGROUP_ROOT).and_then(|()| namespace(NAMESPACE)).expect("right");
        log_limits(LOG_MAX_SIZE, LOG_MAX_FILES).expect("right");
    }
}
