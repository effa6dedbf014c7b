//! Gives a volume's files to the pod's `fsGroup`.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::Path,
};

use rustix::fs::{AtFlags, Gid, chownat};
use stanchion_pod::FsGroup;
use stanchion_untrusted::tree::{Found, walk};

/// Mode bits for the group, of files and of directories, whose new files are the group's too.
const FILE: u32 = 0o660;
const DIRECTORY: u32 = 0o2770;

/// Gives a directory and everything in it to a group.
pub(super) fn change_group(volume: &Path, group: &FsGroup) -> io::Result<()> {
    let top = fs::metadata(volume)?;
    let is_given = top.gid() == group.id && top.mode() & DIRECTORY == DIRECTORY;
    if group.on_root_mismatch && is_given {
        return Ok(());
    }
    walk(volume, |found| match found {
        Found::Directory(directory) => set_owner(directory, group.id, DIRECTORY),
        Found::Link(directory, name) => {
            Ok(chownat(directory, name, None, Some(Gid::from_raw(group.id)), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        Found::File(file) => set_owner(file, group.id, FILE),
    })
}

/// Sets group and mode of an open file by its descriptor, as its name may be another file's by now.
fn set_owner(opened: BorrowedFd<'_>, group: u32, mode: u32) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let entry = fs::metadata(&path)?;
    if entry.gid() != group {
        chown(&path, None, Some(group))?;
    }
    if entry.mode() & mode != mode {
        fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode() & 0o7777 | mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_volume_is_its_groups_and_nothing_outside_is() {
        let outside = tempfile::tempdir().expect("a directory");
        let volume = tempfile::tempdir().expect("a directory");
        fs::write(outside.path().join("theirs"), "").expect("written");
        fs::create_dir(volume.path().join("sub")).expect("made");
        fs::write(volume.path().join("sub/file"), "").expect("written");
        symlink(outside.path(), volume.path().join("way-out")).expect("linked");
        symlink(outside.path().join("theirs"), volume.path().join("sub/way-out")).expect("linked");
        let found = |path: &Path| {
            let entry = fs::symlink_metadata(path).expect("it is there");
            (entry.gid(), entry.mode() & 0o7777)
        };
        let before = (found(outside.path()), found(&outside.path().join("theirs")));
        change_group(volume.path(), &FsGroup { id: 2500, on_root_mismatch: false }).expect("it can be given");
        assert_eq!(found(volume.path()).0, 2500, "R-SEC-11");
        assert_eq!(found(volume.path()).1 & DIRECTORY, DIRECTORY);
        assert_eq!(found(&volume.path().join("sub/file")), (2500, 0o664));
        assert_eq!((found(outside.path()), found(&outside.path().join("theirs"))), before, "R-MNT-4");

        fs::write(volume.path().join("new"), "").expect("written");
        chown(volume.path().join("new"), None, Some(0)).expect("given");
        change_group(volume.path(), &FsGroup { id: 2500, on_root_mismatch: true }).expect("nothing is to be done");
        assert_eq!(found(&volume.path().join("new")).0, 0, "OnRootMismatch looks at the root only");
        change_group(volume.path(), &FsGroup { id: 2600, on_root_mismatch: true }).expect("it can be given");
        assert_eq!(found(&volume.path().join("new")).0, 2600);
    }
}
