//! Gives SELinux labels to a volume's files: without them a confined container may not open its own volumes (R-MNT-7).

use std::{
    ffi::OsStr,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{XattrFlags, getxattr, lgetxattr, lsetxattr, setxattr},
    io::Errno,
};
use stanchion_untrusted::tree::{Found, walk};

/// Extended attribute of the label.
const NAME: &str = "security.selinux";

/// Labels a file, or a directory and everything in it. Files that have the label are not touched.
pub(crate) fn label(path: &Path, label: &str) -> io::Result<()> {
    // The kernel ends labels with a NUL.
    let label = [label.as_bytes(), b"\0"].concat();
    if !fs::symlink_metadata(path)?.is_dir() {
        return label_link(path, &label);
    }
    let open = |file: BorrowedFd<'_>| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    walk(path, |found| match found {
        Found::Directory(file) | Found::File(file) => {
            let path = open(file);
            set(&label, |buffer| getxattr(&path, NAME, buffer), || setxattr(&path, NAME, &label, XattrFlags::empty()))
        }
        Found::Link(directory, name) => label_link(&open(directory).join(OsStr::from_bytes(name.to_bytes())), &label),
    })
}

/// Labels the entry at a path; of a symbolic link the link itself.
fn label_link(path: &Path, label: &[u8]) -> io::Result<()> {
    set(label, |buffer| lgetxattr(path, NAME, buffer), || lsetxattr(path, NAME, label, XattrFlags::empty()))
}

fn set(
    label: &[u8],
    get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    set: impl FnOnce() -> Result<(), Errno>,
) -> io::Result<()> {
    let mut found = vec![0; label.len()];
    match get(&mut found) {
        Ok(length) if found[..length] == *label => Ok(()),
        // A file system without labels has one label for all of its files.
        Err(Errno::OPNOTSUPP) => Ok(()),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE) => Ok(set()?),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(path: &Path) -> Option<String> {
        let mut buffer = [0; 100];
        let length = lgetxattr(path, NAME, &mut buffer[..]).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    // R-MNT-7. The kernel keeps labels even where no security module uses them.
    #[test]
    fn all_of_a_volume_is_labelled_and_nothing_outside_is() {
        let outside = tempfile::tempdir().expect("a directory");
        let volume = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("theirs"), "").expect("written");
        fs::create_dir(volume.path().join("sub")).expect("made");
        fs::write(volume.path().join("sub/file"), "").expect("written");
        symlink(outside.path().join("theirs"), volume.path().join("sub/link")).expect("linked");
        let long = "system_u:object_r:container_file_t:s0:c1,c2";
        for wanted in [long, "system_u:object_r:container_file_t:s0", long] {
            label(volume.path(), wanted).expect("it is labelled");
            for path in ["", "sub", "sub/file", "sub/link"] {
                let expected = format!("{wanted}\0");
                assert_eq!(found(&volume.path().join(path)), Some(expected), "{path}");
            }
        }
        assert_eq!(found(&outside.path().join("theirs")), None);
        let file = volume.path().join("sub/file");
        label(&file, "system_u:object_r:a_t:s0").expect("a file is labelled too");
        assert_eq!(found(&file).as_deref(), Some("system_u:object_r:a_t:s0\0"));
    }
}
