//! Checks who could have written a library: this is the boundary of trust, since loading it runs its code.

use std::{
    fs::{self, Metadata},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use stanchion_runtime::{Error, ErrorKind};

/// Returns the real path of a library, if only root or the agent's own user can have written it and its SHA-256 is as
/// expected.
pub(crate) fn library(path: &Path, sha256: Option<&str>) -> Result<PathBuf, Error> {
    let refuse = |kind, message: String| Error::new(kind, format!("backend library {}: {message}", path.display()));
    if !path.is_absolute() {
        return Err(refuse(ErrorKind::Invalid, "the path must be absolute".to_owned()));
    }
    let real = fs::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let hint = "it does not exist; install the backend, or set `library` or `plugin_dir` in the configuration";
            refuse(ErrorKind::NotFound, hint.to_owned())
        }
        _ => refuse(ErrorKind::Other, "it cannot be found".to_owned()).caused_by(&error),
    })?;
    let look = |place: &Path| {
        fs::metadata(place).map_err(|error| {
            refuse(ErrorKind::Other, format!("{} cannot be looked at", place.display())).caused_by(&error)
        })
    };
    if !look(&real)?.is_file() {
        return Err(refuse(ErrorKind::Invalid, "it is not a regular file".to_owned()));
    }
    for place in real.ancestors() {
        if let Some(objection) = objection(&look(place)?) {
            return Err(refuse(ErrorKind::Permission, format!("{} {objection}", place.display())));
        }
    }
    if let Some(expected) = sha256 {
        let content =
            fs::read(&real).map_err(|error| refuse(ErrorKind::Other, "it cannot be read".into()).caused_by(&error))?;
        let found = hex::encode(Sha256::digest(content));
        if !found.eq_ignore_ascii_case(expected) {
            let message = format!("its SHA-256 is {found}, the configuration wants {expected}");
            return Err(refuse(ErrorKind::Permission, message));
        }
    }
    Ok(real)
}

/// Returns why somebody else could have written to `place`, if so.
fn objection(place: &Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    let mode = place.permissions().mode() & 0o7777;
    if place.uid() != 0 && place.uid() != own {
        return Some(format!("belongs to user {}; it must belong to root: chown root it", place.uid()));
    }
    (mode & 0o022 != 0).then(|| format!("is writable by its group or by all (mode {mode:04o}): chmod go-w it"))
}
