//! The files of an image, which a runtime on this node keeps as layers: looked at, and mounted.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::DirBuilderExt,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use stanchion_untrusted::file;

use crate::{limits, users::Tables};

/// Whose value are the layers, the uppermost first.
const LAYERS: &str = "lowerdir=";

/// How the files of an image are mounted for reading, in the words of mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Kind of file system; `bind` for a single directory.
    pub kind: String,
    /// What is bound; of no meaning for other kinds.
    pub source: String,
    /// Options of the file system.
    pub options: Vec<String>,
}

impl Layers {
    /// Directories as the overlay file system lays them over each other, the uppermost first.
    #[must_use]
    pub fn overlay(directories: &[String]) -> Self {
        // The kernel refuses an overlay of one.
        let (kind, source, options) = match directories {
            [only] => ("bind", only.as_str(), Vec::new()),
            all => ("overlay", "overlay", vec![format!("{LAYERS}{}", all.join(":"))]),
        };
        Self { kind: kind.to_owned(), source: source.to_owned(), options }
    }

    /// The same files from other directories: `other` is called with the number and the path of each.
    ///
    /// # Errors
    /// What `other` says; or they are of a kind that is not made of directories.
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

    /// Mounts the files where nobody else sees them, and has `look` see them by the root of them. A thread takes the mount with
    /// it when it ends, however the agent ends. Blocks.
    ///
    /// # Errors
    /// They cannot be mounted, or what `look` says.
    pub fn look<T: Send>(&self, look: impl FnOnce(&OwnedFd) -> io::Result<T> + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("st-rootfs".to_owned()).spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                let nothing = None::<&str>;
                mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
                // Almost any directory will do: only this thread sees what is mounted on it. Not `/proc`, by which open files are
                // named.
                self.mount_inert(Path::new("/sys"))?;
                look(&open_directory(Path::new("/sys"))?)
            })?;
            thread.join().unwrap_or_else(|_| Err(panicked()))
        })
    }

    /// Mounts the part at `sub_path`, which is inside the image whatever links there are in it, or all if that is empty, at
    /// `place`, which is made: a directory or a file. Nothing that is run, no device and no set-user-id is heeded there. For a part the
    /// whole is mounted beside it. [`unmount`] takes all of it away. Blocks.
    ///
    /// # Errors
    /// The image has no such part; or what mount(2) says.
    pub fn mount_part(&self, sub_path: &Path, place: &Path) -> io::Result<()> {
        if sub_path.as_os_str().is_empty() {
            make_directory(place)?;
            return self.mount_inert(place);
        }
        let whole = place.with_extension("all");
        make_directory(&whole)?;
        self.mount_inert(&whole)?;
        let part = open_in(&open_directory(&whole)?, sub_path, OFlags::PATH)?;
        // No link can exchange what is open.
        let part = format!("/proc/self/fd/{}", part.as_raw_fd());
        match fs::metadata(&part)?.is_dir() {
            true => make_directory(place)?,
            false => drop(File::create_new(place)?),
        }
        Ok(mount(Some(part.as_str()), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    }

    /// Mounts the files at `place`, which is made, to be written.
    ///
    /// # Errors
    /// What mount(2) says.
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

    /// Mounts the files at a directory, which is named from the root.
    fn mount(&self, place: &Path, flags: MsFlags) -> io::Result<()> {
        let (kind, flags) = match self.kind.as_str() {
            // The kernel makes a bind mount as its source is.
            "bind" => (None, MsFlags::MS_BIND),
            kind => (Some(kind), flags),
        };
        let is_data = |option: &&String| !matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind");
        let mut data: Vec<_> = self.options.iter().filter(is_data).cloned().collect();
        let mount_with =
            |data: &[String]| mount(Some(self.source.as_str()), place, kind, flags, Some(data.join(",").as_str()));
        // The kernel takes a page of options, and cuts off the rest: many layers are named from the directory that they share.
        let is_long = data.iter().map(|option| option.len() + 1).sum::<usize>() > rustix::param::page_size();
        let Some(base) = is_long.then(|| shorten(&mut data)).flatten() else { return Ok(mount_with(&data)?) };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("st-layers".to_owned()).spawn_scoped(scope, || {
                // For this thread alone.
                unshare(CloneFlags::CLONE_FS)?;
                std::env::set_current_dir(base)?;
                Ok(mount_with(&data)?)
            })?;
            thread.join().unwrap_or_else(|_| Err(panicked()))
        })
    }
}

/// Opens what is at a path, found as the image's own programs find it: no link in it leads to the node's files.
///
/// # Errors
/// As openat2(2).
pub fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// An image's tables of users; empty where it has none.
///
/// # Errors
/// As read(2).
pub fn tables(root: &OwnedFd) -> io::Result<Tables> {
    Ok(Tables { passwd: table(root, "etc/passwd")?, group: table(root, "etc/group")? })
}

/// Unmounts and removes all places in a directory, and the directory. Nothing happens to what is gone. Blocks.
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

/// The names in a directory; none if there is no such directory.
///
/// # Errors
/// As readdir(3).
pub fn children(directory: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

/// Makes a directory, and those above it that are missing, for nobody but root.
///
/// # Errors
/// As mkdir(2).
pub fn make_directory(path: impl AsRef<Path>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn panicked() -> io::Error {
    io::Error::other("the thread that mounts an image's files panicked")
}

/// Names the layers of an overlay from the directory that they share, which is answered.
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

/// The beginning of a regular file of the image's, as text; empty if the image has something else there, or nothing.
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
