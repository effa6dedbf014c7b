//! The files of an image, which a runtime on this node stores as layers: reading and mounting.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use stanchion_untrusted::{file, make_directory};

use crate::{limits, users::Tables};

/// Prefix of the overlay option with the layers, the uppermost first.
const LAYERS: &str = "lowerdir=";

/// Mount parameters for reading an image's files, in the terms of mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// File system type; `bind` for a single directory.
    pub kind: String,
    /// Source directory of a bind mount; other types ignore it.
    pub source: String,
    /// Options of the file system.
    pub options: Vec<String>,
}

impl Layers {
    /// Returns the overlay of these directories, the uppermost first.
    #[must_use]
    pub fn overlay(directories: &[String]) -> Self {
        // The kernel refuses an overlay of one directory.
        let (kind, source, options) = match directories {
            [only] => ("bind", only.as_str(), Vec::new()),
            all => ("overlay", "overlay", vec![format!("{LAYERS}{}", all.join(":"))]),
        };
        Self { kind: kind.to_owned(), source: source.to_owned(), options }
    }

    /// Replaces the directories: `other` receives the number and path of each, and returns the new path.
    ///
    /// # Errors
    /// The error of `other`; or the file system type has no directories to replace.
    pub fn from_others(mut self, mut other: impl FnMut(usize, &Path) -> io::Result<PathBuf>) -> io::Result<Self> {
        let mut other = |number: usize, path: &str| Ok(other(number, Path::new(path))?.to_string_lossy().into_owned());
        match self.kind.as_str() {
            "bind" => self.source = other(0, &self.source)?,
            "overlay" => {
                for option in &mut self.options {
                    let Some(layers) = option.strip_prefix(LAYERS) else { continue };
                    let others = layers.split(':').enumerate().map(|(number, layer)| other(number, layer));
                    *option = format!("{LAYERS}{}", others.collect::<io::Result<Vec<String>>>()?.join(":"));
                }
            }
            kind => return Err(io::Error::other(format!("files of kind {kind} are not made of directories"))),
        }
        Ok(self)
    }

    /// Mounts the files in a private mount namespace, and calls `look` with their root directory. The mount disappears
    /// with its thread, however the agent ends. Blocks.
    ///
    /// # Errors
    /// The mount fails, or `look` does.
    pub fn look<T: Send>(&self, look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("st-rootfs".to_owned()).spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let nothing = None::<&str>;
                mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
                // Almost any directory will do, because only this thread sees the mount. `/proc` will not: it has the
                // paths of open files.
                self.mount_inert(Path::new("/sys"))?;
                look(&open_directory(Path::new("/sys"))?)
            })?;
            thread.join().unwrap_or_else(|_| Err(panicked()))
        })
    }

    /// Mounts the part of the image at `sub_path`, or the whole image if that is empty, at `place`, which is created as
    /// a directory or file. Links in `sub_path` resolve inside the image. The mount is read-only, `noexec`, `nodev` and
    /// `nosuid`. For a part, the whole image is mounted beside it. [`unmount`] removes both. Blocks.
    ///
    /// # Errors
    /// The image has no such part, or mount(2) fails.
    pub fn mount_part(&self, sub_path: &Path, place: &Path) -> io::Result<()> {
        if sub_path.as_os_str().is_empty() {
            make_directory(place)?;
            return self.mount_inert(place);
        }
        let whole = place.with_extension("all");
        make_directory(&whole)?;
        self.mount_inert(&whole)?;
        let part = open_in(&open_directory(&whole)?, sub_path, OFlags::PATH)?;
        // No link can replace a file that is open.
        let part = format!("/proc/self/fd/{}", part.as_raw_fd());
        match fs::metadata(&part)?.is_dir() {
            true => make_directory(place)?,
            false => drop(File::create_new(place)?),
        }
        Ok(mount(Some(part.as_str()), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    }

    /// Mounts the files writable at `place`, which is created.
    ///
    /// # Errors
    /// mount(2) fails.
    pub fn mount_writable(&self, place: &Path) -> io::Result<()> {
        make_directory(place)?;
        self.mount(place, MsFlags::empty())
    }

    fn mount_inert(&self, place: &Path) -> io::Result<()> {
        self.mount(place, MsFlags::MS_RDONLY)?;
        let inert = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        let (nothing, flags) = (None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | inert);
        Ok(mount(nothing, place, nothing, flags, nothing)?)
    }

    /// Mounts the files at a directory with an absolute path.
    fn mount(&self, place: &Path, flags: MsFlags) -> io::Result<()> {
        let (kind, flags) = match self.kind.as_str() {
            // A bind mount has the flags of its source at first.
            "bind" => (None, MsFlags::MS_BIND),
            kind => (Some(kind), flags),
        };
        let is_data = |option: &&String| !matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind");
        let mut data: Vec<_> = self.options.iter().filter(is_data).cloned().collect();
        let mount_with =
            |data: &[String]| mount(Some(self.source.as_str()), place, kind, flags, Some(data.join(",").as_str()));
        // The kernel takes one page of options and cuts off the rest, so many layers get paths relative to their common
        // directory.
        let is_long = data.iter().map(|option| option.len() + 1).sum::<usize>() > rustix::param::page_size();
        let Some(base) = is_long.then(|| shorten(&mut data)).flatten() else { return Ok(mount_with(&data)?) };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("st-layers".to_owned()).spawn_scoped(scope, || {
                // Gives this thread a working directory of its own.
                unshare(CloneFlags::CLONE_FS)?;
                std::env::set_current_dir(base)?;
                Ok(mount_with(&data)?)
            })?;
            thread.join().unwrap_or_else(|_| Err(panicked()))
        })
    }
}

/// Opens a path inside an image, resolved as the image's own programs do: no link in it leads to the node's files.
///
/// # Errors
/// As openat2(2).
pub fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Returns an image's user and group tables; empty if it has none.
///
/// # Errors
/// As read(2).
pub fn tables(root: &OwnedFd) -> io::Result<Tables> {
    Ok(Tables { passwd: table(root, "etc/passwd")?, group: table(root, "etc/group")? })
}

/// Unmounts and removes all entries of a directory, and the directory. An absent directory is no error. Blocks.
///
/// # Errors
/// As unlink(2), rmdir(2).
pub fn unmount(directory: &Path) -> io::Result<()> {
    for name in children(directory)? {
        let place = directory.join(name);
        while umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
        match fs::symlink_metadata(&place)?.is_dir() {
            true => fs::remove_dir(&place)?,
            false => fs::remove_file(&place)?,
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns the names in a directory; none if there is no such directory.
///
/// # Errors
/// As readdir(3).
pub fn children(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn panicked() -> io::Error {
    io::Error::other("the thread that mounts an image's files panicked")
}

/// Makes the paths of an overlay's layers relative to their common directory, and returns that.
fn shorten(options: &mut [String]) -> Option<PathBuf> {
    let layers = options.iter_mut().find(|option| option.starts_with(LAYERS))?;
    let paths: Vec<_> = layers[LAYERS.len()..].split(':').map(Path::new).collect();
    let mut base = paths.first()?.parent()?;
    while !paths.iter().all(|path| path.starts_with(base)) {
        base = base.parent()?;
    }
    let below = paths.iter().map(|path| path.strip_prefix(base).ok()?.to_str()).collect::<Option<Vec<_>>>()?.join(":");
    let base = base.to_owned();
    *layers = format!("{LAYERS}{below}");
    Some(base)
}

/// Reads the beginning of a regular file of the image, as text; empty if there is no regular file at the path.
fn table(root: &OwnedFd, path: &str) -> io::Result<String> {
    let found = match open_in(root, Path::new(path), OFlags::PATH) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        found => found?,
    };
    let file = match file::open_found(&found) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            tracing::warn!("the image's /{path} is not read: {error}");
            return Ok(String::new());
        }
        file => file?,
    };
    if let Err(error) = limits::TABLE.check(file.metadata()?.len()) {
        tracing::warn!("of the image's /{path} only the beginning is read: {error}");
    }
    let mut bytes = Vec::new();
    file.take(limits::TABLE.most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_table_of_users_is_a_small_regular_file_of_the_image() {
        use rustix::fs::{FileType, mknodat};
        let dir = tempfile::tempdir().expect("a directory");
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).expect("made");
        let passwd = etc.join("passwd");
        let read =
            || Layers::overlay(&[dir.path().display().to_string()]).look(tables).expect("it can be looked at").passwd;
        assert_eq!(read(), "", "there is none");
        fs::create_dir_all(dir.path().join("store")).expect("made");
        fs::write(dir.path().join("store/passwd"), "app:x:7:8::/:/bin/sh\n").expect("written");
        symlink("/store/passwd", &passwd).expect("linked");
        assert_eq!(read(), "app:x:7:8::/:/bin/sh\n", "a link inside is the image's");
        for (kind, device) in [
            (FileType::Fifo, 0),
            (FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
            (FileType::CharacterDevice, rustix::fs::makedev(10, 200)),
            (FileType::BlockDevice, rustix::fs::makedev(7, 0)),
            (FileType::Socket, 0),
        ] {
            fs::remove_file(&passwd).expect("removed");
            mknodat(CWD, &passwd, kind, Mode::RUSR, device).expect("made");
            assert_eq!(read(), "", "{kind:?}");
        }
        for target in ["/proc/self/root/etc/passwd", "../../../../../../../etc/passwd", "passwd", "/dev/zero"] {
            fs::remove_file(&passwd).expect("removed");
            symlink(target, &passwd).expect("linked");
            let table = Layers::overlay(&[dir.path().display().to_string()]).look(tables).map(|tables| tables.passwd);
            assert!(!table.is_ok_and(|table| table.contains("root:")), "{target} is the node's");
        }
        fs::remove_file(&passwd).expect("removed");
        let huge = File::create(&passwd).expect("made");
        huge.set_len(1 << 40).expect("sparse");
        assert_eq!(read().len() as u64, limits::TABLE.most);
    }

    #[test]
    fn many_layers_are_mounted_by_short_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let layers = (0..100).map(|number| {
            let layer = dir.path().join(format!("a-directory-with-a-name-of-some-length/and-a-layer-of-it/{number}"));
            fs::create_dir_all(&layer).expect("made");
            fs::write(layer.join(format!("file-{number}")), "").expect("written");
            layer.display().to_string()
        });
        let mut image = Layers::overlay(&layers.collect::<Vec<_>>());
        image.options.push("index=off".to_owned());
        assert!(image.options[0].len() > rustix::param::page_size());
        let place = dir.path().join("home/place");
        image.mount_part(Path::new(""), &place).expect("it is mounted");
        let files = fs::read_dir(&place).expect("it can be read").count();
        unmount(&dir.path().join("home")).expect("unmounted");
        assert_eq!(files, 100);
        image.look(|root| open_in(root, Path::new("file-99"), OFlags::PATH).map(drop)).expect("it is there");
    }

    // R-VOL-11.
    #[test]
    fn a_part_of_an_image_is_found_inside_it_and_nothing_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, home) = (dir.path().join("files"), dir.path().join("images/container"));
        let image = Layers::overlay(&[files.display().to_string()]);
        fs::create_dir_all(files.join("etc")).expect("made");
        fs::write(files.join("etc/hostname"), "image").expect("written");
        symlink("/etc", files.join("absolute")).expect("linked");
        symlink("../../../../../../../etc", files.join("up")).expect("linked");
        symlink("/proc/self/root/etc", files.join("magic")).expect("linked");
        for (number, part) in ["", "etc", "etc/hostname", "absolute", "up/hostname"].iter().enumerate() {
            let place = home.join(number.to_string());
            image.mount_part(Path::new(part), &place).unwrap_or_else(|error| panic!("{part}: {error}"));
            let file = match place.is_dir() {
                true => place.join(if part.is_empty() { "etc/hostname" } else { "hostname" }),
                false => place,
            };
            assert_eq!(fs::read_to_string(&file).expect("it is there"), "image", "{part} is in the image");
            assert!(fs::write(&file, "node").is_err(), "{part} cannot be written");
        }
        for part in ["none", "etc/none", "magic", "etc/hostname/none"] {
            assert!(image.mount_part(Path::new(part), &home.join("other")).is_err(), "{part}");
            unmount(&home).expect("cleared");
        }
        assert!(!home.exists(), "I6");
        unmount(&home).expect("it is gone already");
        assert_eq!(fs::read_to_string(files.join("etc/hostname")).expect("it stays"), "image");
    }

    // R-VOL-11.
    #[test]
    fn what_is_mounted_of_an_image_is_not_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, home) = (dir.path().join("files"), dir.path().join("home"));
        fs::create_dir(&files).expect("made");
        fs::write(files.join("run"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(files.join("run"), fs::Permissions::from_mode(0o755)).expect("it is a program");
        for (place, part) in [("whole", ""), ("part", "run")] {
            Layers::overlay(&[files.display().to_string()])
                .mount_part(Path::new(part), &home.join(place))
                .expect("mounted");
        }
        let run = |program: PathBuf| std::process::Command::new(program).status().map_err(|error| error.kind());
        assert!(run(files.join("run")).is_ok_and(|status| status.success()));
        for program in ["whole/run", "part"] {
            assert_eq!(run(home.join(program)).expect_err("it is not run"), io::ErrorKind::PermissionDenied);
        }
        unmount(&home).expect("unmounted");
    }
}
