//! Makes bind mounts for `subPath`, which no link can redirect once they are made (R-MNT-4).

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, mkdirat},
    mount::{UnmountFlags, mount_bind_recursive, unmount},
};

use super::{PodFiles, inside, mounts};

/// Prepares `path` of a volume for a container, as a bind mount, which stays the same whatever becomes of the path. It
/// creates a missing directory with the volume's mode.
pub(crate) fn prepare(
    files: &PodFiles,
    volume: (&str, &Path),
    container: &str,
    index: usize,
    path: &Path,
) -> io::Result<PathBuf> {
    let (name, root) = volume;
    let found = open(root, path)?;
    let target = files.sub_path(name, container, index);
    let source = format!("/proc/self/fd/{}", found.as_raw_fd());
    let is_directory = fs::metadata(&source)?.is_dir();
    // An earlier attempt of the container may have a mount there.
    if fs::symlink_metadata(&target).is_ok() {
        if mounts::is_mounted(&target)? {
            unmount(&target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        match fs::symlink_metadata(&target)?.is_dir() {
            true => fs::remove_dir(&target)?,
            false => fs::remove_file(&target)?,
        }
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    match is_directory {
        true => fs::create_dir(&target)?,
        false => drop(fs::File::create_new(&target)?),
    }
    mount_bind_recursive(source.as_str(), &target)?;
    Ok(target)
}

/// Opens `path` below the directory `root`, and creates missing directories component by component.
fn open(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let volume = fs::metadata(root)?;
    if !volume.is_dir() {
        return Err(io::Error::new(ErrorKind::NotADirectory, "the volume is not a directory"));
    }
    let root = inside::root(root)?;
    match inside::open_below(&root, path, OFlags::PATH) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut made = PathBuf::from(".");
    for component in path.components() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a path inside the volume"));
        };
        let parent = inside::open_below(&root, &made, OFlags::PATH | OFlags::DIRECTORY)?;
        made.push(name);
        match mkdirat(&parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                let opened = inside::open_below(&root, &made, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
                let mode = Permissions::from_mode(volume.mode() & 0o7777);
                fs::set_permissions(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    inside::open_below(&root, path, OFlags::PATH)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::{CWD, RenameFlags};

    use super::*;

    /// Returns the path of an open file.
    fn name(opened: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).expect("it is open")
    }

    #[test]
    fn what_is_missing_is_made_with_the_volumes_mode() {
        let volume = tempfile::tempdir().expect("a directory");
        fs::set_permissions(volume.path(), Permissions::from_mode(0o777)).expect("set");
        let opened = open(volume.path(), Path::new("one/two")).expect("it is made");
        assert_eq!(name(&opened), volume.path().join("one/two"));
        for path in ["one", "one/two"] {
            let mode = fs::metadata(volume.path().join(path)).expect("made").mode() & 0o7777;
            assert_eq!(mode, 0o777, "{path}: R-MNT-4, as recorded");
        }
    }

    #[test]
    fn links_inside_are_followed_and_none_leads_out() {
        let outside = tempfile::tempdir().expect("a directory");
        let volume = tempfile::tempdir().expect("a directory");
        fs::create_dir(volume.path().join("data")).expect("made");
        fs::write(volume.path().join("data/key"), "").expect("written");
        symlink("data/key", volume.path().join("key")).expect("linked");
        let opened = open(volume.path(), Path::new("key")).expect("it is inside");
        assert_eq!(name(&opened), volume.path().join("data/key"));
        let up = format!("../{}", outside.path().file_name().expect("a name").to_string_lossy());
        for (link, target) in [
            ("etc", "/etc"),
            ("absolute", &*outside.path().to_string_lossy()),
            ("up", up.as_str()),
            ("proc", "/proc/self/root"),
        ] {
            symlink(target, volume.path().join(link)).expect("linked");
            for path in [link.to_owned(), format!("{link}/made"), format!("data/../{link}")] {
                let opened = open(volume.path(), Path::new(&path));
                assert!(opened.is_err(), "{path} leads to {:?}: R-MNT-4", opened.map(|it| name(&it)));
            }
        }
        assert_eq!(fs::read_dir(outside.path()).expect("it is there").count(), 0, "nothing was made outside: R-MNT-4");
    }

    #[test]
    fn a_race_of_directory_and_link_is_never_won() {
        let outside = tempfile::tempdir().expect("a directory");
        let volume = tempfile::tempdir().expect("a directory");
        fs::create_dir(volume.path().join("a")).expect("made");
        symlink(outside.path(), volume.path().join("b")).expect("linked");
        let (done, root) = (AtomicBool::new(false), volume.path());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (a, b) = (root.join("a"), root.join("b"));
                    rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).expect("both are there");
                }
            });
            for _ in 0..20_000 {
                if let Ok(opened) = open(root, Path::new("a/sub")) {
                    let name = name(&opened);
                    assert!(name.starts_with(root), "{} was reached: R-MNT-4", name.display());
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(outside.path()).expect("it is there").count(), 0, "nothing was made outside: R-MNT-4");
    }
}
