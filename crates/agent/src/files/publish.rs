//! Replaces all files of a volume at once, with a new directory and a new link to it (R-VOL-8).
//!
//! ```text
//! <volume>/..2026_11_24_18_00_00.123456789/{a,b}     the files
//! <volume>/..data -> ..2026_11_24_18_00_00.123456789
//! <volume>/a -> ..data/a                             what containers see
//! ```
//!
//! A directory in which something is mounted stays a directory, with the links in it:
//! `<volume>/dir/a -> ../..data/dir/a` beside the mount point `<volume>/dir/point`. Replacing a mount point with the
//! files would take the mount away.
//!
//! An agent that dies in between leaves the old files in force, or the new ones. The next call removes all others that
//! it has left.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Component, Path, PathBuf},
};

use stanchion_untrusted::{
    Limit, Links, read,
    tree::{self, Found},
};

use super::{ignore_absent, points::Points};

/// The link to the files in force.
const DATA: &str = "..data";
/// The link before it is renamed to [`DATA`].
const NEXT: &str = "..data_tmp";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// Content, borrowed from its object where possible, as many files may have the same.
    pub content: Cow<'a, [u8]>,
    pub mode: u32,
}

/// Files by path: relative, without `..`.
pub(super) type Payload<'a> = BTreeMap<PathBuf, File<'a>>;

/// Makes `payload` the files in the existing directory `volume`, readable for `group` if one is named. Files that have
/// not changed stay, and so do mount points of the pod.
pub(super) fn publish(volume: &Path, payload: &Payload<'_>, group: Option<u32>, points: &Points) -> io::Result<()> {
    let current = current(volume)?;
    let name = match current.filter(|name| is_same(&volume.join(name), payload, group, points)) {
        Some(name) => name,
        None => {
            let name = OsString::from(crate::Clock::System.now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string());
            if let Err(error) = write(&volume.join(&name), payload, group) {
                // Half-written files must not keep a full disk full.
                tree::remove(volume.join(&name))?;
                return Err(error);
            }
            ignore_absent(fs::remove_file(volume.join(NEXT)))?;
            symlink(&name, volume.join(NEXT))?;
            fs::rename(volume.join(NEXT), volume.join(DATA))?;
            name
        }
    };
    let visible = Visible::of(payload, points);
    for directory in &visible.directories {
        let path = volume.join(directory);
        // The directory was a link before something was mounted in it.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
            fs::remove_file(&path)?;
        }
        match fs::create_dir(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => set_owner(&path, directory_mode(group), group)?,
        }
    }
    for link in &visible.links {
        let path = volume.join(link);
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            tree::remove(&path)?;
        }
        let up: PathBuf = link.components().skip(1).map(|_| Component::ParentDir).collect();
        match symlink(up.join(DATA).join(link), path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // Removes the files that were in force before, files that a killed agent has left, and names that are not wanted
    // any more.
    for directory in [Path::new("")].into_iter().chain(visible.directories.iter().map(PathBuf::as_path)) {
        for entry in fs::read_dir(volume.join(directory))? {
            let entry = entry?;
            let found = directory.join(entry.file_name());
            match () {
                () if found == Path::new(DATA) || found == Path::new(&name) => {}
                () if visible.has(&found) || points.whole.contains(&found) => {}
                () => tree::remove(entry.path())?,
            }
        }
    }
    Ok(())
}

/// Entries of a volume that containers see, by their paths in it.
#[derive(Debug, Default)]
struct Visible {
    links: BTreeSet<PathBuf>,
    /// Directories in which something is mounted, parents first.
    directories: BTreeSet<PathBuf>,
}

impl Visible {
    fn of(payload: &Payload, points: &Points) -> Self {
        let mut visible = Self::default();
        for path in payload.keys() {
            let mut prefix = PathBuf::new();
            for component in path.components() {
                prefix.push(component);
                if prefix == *path || !points.are_at_or_below(&prefix) {
                    break;
                }
                visible.directories.insert(prefix.clone());
            }
            visible.links.insert(prefix);
        }
        for point in &points.whole {
            let above: Vec<_> = point.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
            // No mount point can be below a file: the runtime will report that.
            if !above.iter().any(|path| visible.links.contains(*path)) {
                visible.directories.extend(above.into_iter().map(Path::to_owned));
            }
        }
        visible
    }

    fn has(&self, path: &Path) -> bool {
        self.links.contains(path) || self.directories.contains(path)
    }
}

/// Returns the name of the directory in force.
fn current(volume: &Path) -> io::Result<Option<OsString>> {
    match fs::read_link(volume.join(DATA)) {
        Ok(target) => {
            let is_name = target.components().count() == 1 && target.as_os_str().as_bytes().starts_with(b"..2");
            Ok(is_name.then(|| target.into_os_string()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(directory: &Path, payload: &Payload<'_>, group: Option<u32>) -> io::Result<()> {
    fs::create_dir(directory)?;
    set_owner(directory, directory_mode(group), group)?;
    for (path, file) in payload {
        let mut parent = directory.to_owned();
        for component in path.parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            match fs::create_dir(&parent) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => set_owner(&parent, directory_mode(group), group)?,
            }
        }
        let path = directory.join(path);
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        opened.write_all(&file.content)?;
        set_owner(&path, file_mode(file, group), group)?;
    }
    Ok(())
}

/// Sets the group and mode of an entry, whatever the umask is.
fn set_owner(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        lchown(path, None, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn directory_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2755 } else { 0o755 }
}

/// Returns the mode of a file. A group can read the files that it is given (R-VOL-8).
fn file_mode(file: &File<'_>, group: Option<u32>) -> u32 {
    let mode = file.mode & 0o777;
    if group.is_some() { mode | 0o440 } else { mode }
}

/// Returns whether a directory has exactly these files, besides mount points.
fn is_same(directory: &Path, payload: &Payload<'_>, group: Option<u32>, points: &Points) -> bool {
    let is_a_file = |path: &&PathBuf| fs::symlink_metadata(directory.join(path)).is_ok_and(|entry| !entry.is_dir());
    let mounted_on = points.parts.iter().filter(|path| !payload.contains_key(*path)).filter(is_a_file).count();
    has_files(directory, payload.len() + mounted_on)
        && payload.iter().all(|(path, file)| {
            let path = directory.join(path);
            let is_right = |entry: fs::Metadata| {
                entry.mode() & 0o7777 == file_mode(file, group)
                    && entry.len() == file.content.len() as u64
                    && group.is_none_or(|group| entry.gid() == group)
            };
            let limit = Limit::new("file of a volume", file.content.len() as u64);
            fs::symlink_metadata(&path).is_ok_and(is_right)
                && read(&path, Links::Refuse, limit).is_ok_and(|it| *it == *file.content)
        })
}

/// Returns whether exactly `count` entries of a tree are no directories.
fn has_files(directory: &Path, count: usize) -> bool {
    let mut found = 0;
    let walked = tree::walk(directory, |entry| {
        found += usize::from(!matches!(entry, Found::Directory(_)));
        // More need not be counted.
        if found > count { Err(ErrorKind::InvalidData.into()) } else { Ok(()) }
    });
    walked.is_ok() && found == count
}

/// Returns the first path that is also a directory above another path, which is a conflict.
pub(super) fn conflict<'a>(payload: &'a Payload<'_>) -> Option<&'a Path> {
    payload.keys().find(|path| path.ancestors().skip(1).any(|above| payload.contains_key(above))).map(PathBuf::as_path)
}

#[cfg(test)]
mod tests;
