//! `VOLUME`s of an image: each is a snapshot of the container's own, so that it is writable whatever the root file
//! system is, is measured, and goes with the container. It begins with the image's files there, as in containerd's CRI.

use std::{
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use containerd_client::{
    services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest},
    tonic::{Code, Status},
    types::Mount,
};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, chownat, fchmod, fchown, fgetxattr,
        flistxattr, fsetxattr, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat,
    },
    io::Errno,
};
use stanchion_sdk::{
    layers::{Layers, open_in},
    runtime::ContainerConfig,
};

use crate::{Containerd, image::Resolved, limits};

/// Returns the paths of an image's `VOLUME`s at which a container has no other mount, from the root.
pub(crate) fn places(image: &Resolved, config: &ContainerConfig) -> Vec<PathBuf> {
    let mut places: Vec<_> = image.config.config.volumes.iter().map(|place| clean(Path::new(place))).collect();
    places.sort();
    places.dedup();
    places.retain(|place| *place != Path::new("/") && !config.mounts.iter().any(|it| clean(&it.destination) == *place));
    places
}

/// Returns a path from the root, without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component::{CurDir, Normal, ParentDir, Prefix, RootDir};
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Normal(name) => cleaned.push(name),
            ParentDir => drop(cleaned.pop()),
            CurDir | RootDir | Prefix(_) => {}
        }
    }
    cleaned
}

impl Containerd {
    /// Returns the mounts of a volume's snapshot, which is made if there is none.
    pub(super) async fn writable(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let (snapshotter, key) = (self.config.snapshotter.clone(), key.to_owned());
        let prepare = PrepareSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
            ..PrepareSnapshotRequest::default()
        };
        let mut snapshots = self.client.snapshots();
        match snapshots.prepare(self.client.request(prepare)).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let request = MountsRequest { snapshotter, key };
                snapshots.mounts(self.client.request(request)).await.map(|it| it.into_inner().mounts)
            }
            prepared => prepared.map(|it| it.into_inner().mounts),
        }
    }
}

/// Copies the image's directory `place` into the directory `volume`, which gets its owner and mode. Replaces what an
/// earlier, interrupted copy has left. If the image has no directory there, the volume stays empty.
pub(super) fn fill(image: &Layers, place: &Path, volume: &Path) -> io::Result<()> {
    let to = openat(CWD, volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    image.look(|root| match open_in(root, place, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(from) => copy(from, to),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
        Err(error) => Err(error),
    })
}

/// Directory that is being copied.
struct Level {
    from: OwnedFd,
    entries: Dir,
    to: OwnedFd,
}

impl Level {
    fn new(from: OwnedFd, to: OwnedFd) -> io::Result<Self> {
        attributes(&from, &to)?;
        Ok(Self { entries: Dir::read_from(&from)?, from, to })
    }
}

/// Copies a directory, without recursion: an image can have directories as deep as it likes.
fn copy(from: OwnedFd, to: OwnedFd) -> io::Result<()> {
    let mut levels = vec![Level::new(from, to)?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.next() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if let Some(deeper) = copy_one(level, entry.file_name())? {
            limits::VOLUME_DEPTH.check_count(levels.len())?;
            levels.push(deeper);
        }
    }
    Ok(())
}

/// Copies one entry. Returns a directory, whose entries are still to be copied.
fn copy_one(level: &Level, name: &CStr) -> io::Result<Option<Level>> {
    let Level { from, to, .. } = level;
    let found = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let kind = FileType::from_raw_mode(found.st_mode);
    if kind == FileType::Directory {
        match mkdirat(to, name, Mode::RWXU) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        let open = |directory: &OwnedFd| openat(directory, name, flags | OFlags::DIRECTORY, Mode::empty());
        return Level::new(open(from)?, open(to)?).map(Some);
    }
    match unlinkat(to, name, AtFlags::empty()) {
        Err(Errno::NOENT) => {}
        removed => removed?,
    }
    let owner = (rustix::fs::Uid::from_raw(found.st_uid), rustix::fs::Gid::from_raw(found.st_gid));
    match kind {
        FileType::RegularFile => {
            let mut read = File::from(openat(from, name, flags | OFlags::NONBLOCK, Mode::empty())?);
            let write = openat(to, name, flags | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR)?;
            let mut write = File::from(write);
            io::copy(&mut read, &mut write)?;
            attributes(read, write)?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        kind => {
            mknodat(to, name, kind, Mode::from_raw_mode(found.st_mode & 0o7777), found.st_rdev)?;
            chownat(to, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(None)
}

/// Copies owner, mode, extended attributes and modification time of a file or a directory.
fn attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let found = rustix::fs::fstat(&from)?;
    // The owner first: its change clears set-user-id and capabilities.
    fchown(&to, Some(rustix::fs::Uid::from_raw(found.st_uid)), Some(rustix::fs::Gid::from_raw(found.st_gid)))?;
    fchmod(&to, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    for name in names_of_attributes(&from)? {
        // The node decides on its SELinux labels.
        if name.as_bytes() == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; limits::ATTRIBUTE.size()];
        let length = fgetxattr(&from, name.as_c_str(), &mut value)?;
        match fsetxattr(&to, name.as_c_str(), &value[..length], rustix::fs::XattrFlags::empty()) {
            // Not every file system has every attribute.
            Err(Errno::NOTSUP | Errno::PERM) => {}
            set => set?,
        }
    }
    let time = Timespec { tv_sec: found.st_mtime, tv_nsec: found.st_mtime_nsec.try_into().unwrap_or(0) };
    Ok(futimens(&to, &Timestamps { last_access: time, last_modification: time })?)
}

fn names_of_attributes(file: impl AsFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut list = vec![0; limits::ATTRIBUTE.size()];
    let length = match flistxattr(file, &mut list) {
        Err(Errno::NOTSUP) => 0,
        length => length?,
    };
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // overlayfs's own attributes say how its layers lie over each other.
    let names = names.filter(|name| !name.starts_with(b"trusted.overlay."));
    Ok(names.filter_map(|name| std::ffi::CString::new(name).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    };

    use super::*;

    fn image(directory: &Path) -> Layers {
        Layers::overlay(&[directory.display().to_string()])
    }

    #[test]
    fn a_volume_begins_with_what_the_image_has_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, volume) = (dir.path().join("files"), dir.path().join("volume"));
        fs::create_dir_all(files.join("data/deep/er")).expect("made");
        fs::create_dir(&volume).expect("made");
        fs::write(files.join("data/deep/seed"), "seed").expect("written");
        fs::set_permissions(files.join("data/deep/seed"), fs::Permissions::from_mode(0o4640)).expect("set");
        symlink("/nowhere", files.join("data/link")).expect("linked");
        mknodat(CWD, files.join("data/fifo"), FileType::Fifo, Mode::RUSR, 0).expect("made");
        for (path, owner) in [("data", 1000), ("data/deep", 1001), ("data/deep/seed", 1002)] {
            chown(files.join(path), Some(owner), Some(owner)).expect("given");
        }
        fs::set_permissions(files.join("data/deep/seed"), fs::Permissions::from_mode(0o4640)).expect("set");
        lchown(files.join("data/link"), Some(1003), Some(1003)).expect("given");
        fs::set_permissions(files.join("data"), fs::Permissions::from_mode(0o750)).expect("set");
        // An interrupted copy is done again.
        fs::write(volume.join("link"), "half").expect("written");
        for _ in 0..2 {
            fill(&image(&files), Path::new("/data"), &volume).expect("filled");
        }
        let found = |path: &str| {
            let entry = fs::symlink_metadata(volume.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            (entry.mode(), entry.uid(), entry.gid())
        };
        assert_eq!(found(""), (0o40750, 1000, 1000));
        assert_eq!(found("deep").1, 1001);
        assert_eq!(found("deep/seed"), (0o104_640, 1002, 1002));
        assert_eq!((found("link").0 & 0o170_000, found("link").1), (0o120_000, 1003));
        assert_eq!(found("fifo").0 & 0o170_000, 0o10_000);
        assert_eq!(fs::read_to_string(volume.join("deep/seed")).expect("it is there"), "seed");
    }

    #[test]
    fn what_the_image_has_not_leaves_a_volume_empty_and_no_link_leads_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, volume) = (dir.path().join("files"), dir.path().join("volume"));
        fs::create_dir(&files).expect("made");
        fs::create_dir(&volume).expect("made");
        fs::write(files.join("file"), "").expect("written");
        symlink("/etc", files.join("out")).expect("linked");
        symlink("../../../../../../etc", files.join("up")).expect("linked");
        for place in ["/none", "/file", "/file/below", "/out", "/up"] {
            fill(&image(&files), Path::new(place), &volume).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(fs::read_dir(&volume).expect("it is there").count(), 0, "{place}");
        }
    }
}
