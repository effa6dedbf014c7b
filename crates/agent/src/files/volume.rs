//! Volumes made ready for mounting.

use std::{
    fs::{self, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};
use stanchion_pod::{HostPathKind, Medium, ObjectKey, Volume};

use super::{PodFiles, mounts};

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("hostPath type check failed: {} is not {expected}: {found}", path.display())]
    WrongType { path: PathBuf, expected: &'static str, found: &'static str },
    #[error("{tried} {}", path.display())]
    Io { tried: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} not found")]
    Missing(ObjectKey),
}

/// Makes a volume ready; answers the path on the node to mount. Nothing happens to what is there.
pub(crate) fn prepare(name: &str, volume: &Volume, files: &PodFiles) -> Result<PathBuf, VolumeError> {
    match volume {
        Volume::HostPath { path, kind } => host_path(path, *kind).map(|()| path.clone()),
        Volume::EmptyDir { medium, size_limit } => {
            let path = files.empty_dir(name);
            let failed = |tried| {
                let path = path.clone();
                move |source| VolumeError::Io { tried, path, source }
            };
            fs::create_dir_all(&path).map_err(failed("cannot make the directory"))?;
            match medium {
                Medium::Memory if mounts::is_mounted(&path).map_err(failed("cannot see what is mounted at"))? => {}
                Medium::Memory => {
                    let size = size_limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
                    let options = std::ffi::CString::new(format!("mode=0777{size}")).expect("digits and letters only");
                    mount("tmpfs", &path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(options.as_c_str()))
                        .map_err(io::Error::from)
                        .map_err(failed("cannot mount a tmpfs at"))?;
                }
                Medium::Disk => {
                    // Any user may write, as in every kubelet's emptyDir; the umask would take that away from `create`.
                    let open = Permissions::from_mode(0o777);
                    fs::set_permissions(&path, open).map_err(failed("cannot set the mode of"))?;
                }
            }
            Ok(path)
        }
        Volume::Projected(_) | Volume::Claim { .. } => {
            unreachable!("refused by name: {name}")
        }
    }
}

/// Checks or makes a path of the node (R-VOL, `hostPath.type`).
fn host_path(path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    let failed = |tried| move |source| VolumeError::Io { tried, path: path.to_owned(), source };
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed("cannot look at")(error)),
    };
    let expect = |expected, is: fn(&Metadata) -> bool| match &found {
        Some(found) if is(found) => Ok(()),
        found => Err(VolumeError::WrongType {
            path: path.to_owned(),
            expected,
            found: found.as_ref().map_or("it does not exist", what),
        }),
    };
    match kind {
        HostPathKind::Unset if found.is_some() => Ok(()),
        // What is mounted must exist; like the runtimes below kubelet, a directory is made.
        HostPathKind::Unset => fs::create_dir_all(path).map_err(failed("cannot make the directory")),
        HostPathKind::DirectoryOrCreate if found.is_none() => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(failed("cannot make the directory"))
        }
        HostPathKind::FileOrCreate if found.is_none() => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
            made.map(drop).map_err(failed("cannot make the file"))
        }
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => expect("a directory", Metadata::is_dir),
        HostPathKind::FileOrCreate | HostPathKind::File => expect("a file", Metadata::is_file),
        HostPathKind::Socket => expect("a socket file", |found| found.file_type().is_socket()),
        HostPathKind::CharDevice => expect("a character device", |found| found.file_type().is_char_device()),
        HostPathKind::BlockDevice => expect("a block device", |found| found.file_type().is_block_device()),
    }
}

fn what(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "it is a directory",
        () if kind.is_file() => "it is a file",
        () if kind.is_socket() => "it is a socket",
        () if kind.is_char_device() => "it is a character device",
        () if kind.is_block_device() => "it is a block device",
        () => "it is something else",
    }
}
