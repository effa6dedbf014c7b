//! Files that appear all at once: a new directory, and a link to it that is replaced (R-VOL-8).
//!
//! ```text
//! <volume>/..2026_11_24_18_00_00.123456789/{a,b}     the files
//! <volume>/..data -> ..2026_11_24_18_00_00.123456789
//! <volume>/a -> ..data/a                             what is seen
//! ```
//!
//! Whoever dies in between leaves the old files in force, or the new ones; what else is there then goes with the next
//! call.

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

use super::ignore_absent;

/// The link to the files in force.
const DATA: &str = "..data";
/// The link before it is put in place.
const NEXT: &str = "..data_tmp";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// That of an object where it can be: many files may have the same.
    pub content: Cow<'a, [u8]>,
    pub mode: u32,
}

/// Files by path: relative, without `..`.
pub(super) type Payload<'a> = BTreeMap<PathBuf, File<'a>>;

/// Makes these the files in `volume`, which exists, readable for `group` if one is named. Nothing happens if they are.
pub(super) fn publish(volume: &Path, payload: &Payload<'_>, group: Option<u32>) -> io::Result<()> {
    let current = current(volume)?;
    let name = match current.filter(|name| is_same(&volume.join(name), payload, group)) {
        Some(name) => name,
        None => {
            let name = OsString::from(crate::Clock::System.now().strftime("..%Y_%m_%d_%H_%M_%S.%9f").to_string());
            if let Err(error) = write(&volume.join(&name), payload, group) {
                // What is half written on a full disk must not keep it full.
                tree::remove(volume.join(&name))?;
                return Err(error);
            }
            ignore_absent(fs::remove_file(volume.join(NEXT)))?;
            symlink(&name, volume.join(NEXT))?;
            fs::rename(volume.join(NEXT), volume.join(DATA))?;
            name
        }
    };
    let visible: BTreeSet<_> = payload.keys().filter_map(|path| path.components().next()).map(first).collect();
    for name in &visible {
        match symlink(Path::new(DATA).join(name), volume.join(name)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    // What was in force before, what a killed agent left, and names that are not wanted any more.
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let found = entry.file_name();
        match () {
            () if found == DATA || found == name || visible.contains(&found) => {}
            () => tree::remove(entry.path())?,
        }
    }
    Ok(())
}

fn first(component: Component<'_>) -> OsString {
    component.as_os_str().to_owned()
}

/// The directory in force, by name.
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
    own(directory, directory_mode(group), group)?;
    for (path, file) in payload {
        let mut parent = directory.to_owned();
        for component in path.parent().into_iter().flat_map(Path::components) {
            parent.push(component);
            match fs::create_dir(&parent) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => own(&parent, directory_mode(group), group)?,
            }
        }
        let path = directory.join(path);
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        opened.write_all(&file.content)?;
        own(&path, file_mode(file, group), group)?;
    }
    Ok(())
}

/// Gives a thing that nobody has seen yet its group and mode; the umask has no say.
fn own(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if group.is_some() {
        lchown(path, None, group)?;
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn directory_mode(group: Option<u32>) -> u32 {
    if group.is_some() { 0o2755 } else { 0o755 }
}

/// The group can read what it is given (R-VOL-8).
fn file_mode(file: &File<'_>, group: Option<u32>) -> u32 {
    let mode = file.mode & 0o777;
    if group.is_some() { mode | 0o440 } else { mode }
}

/// Whether a directory has exactly these files.
fn is_same(directory: &Path, payload: &Payload<'_>, group: Option<u32>) -> bool {
    has_files(directory, payload.len())
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

/// Whether so many things in a directory are no directories.
fn has_files(directory: &Path, count: usize) -> bool {
    let mut found = 0;
    let walked = tree::walk(directory, |entry| {
        found += usize::from(!matches!(entry, Found::Directory(_)));
        // More need not be counted.
        if found > count { Err(ErrorKind::InvalidData.into()) } else { Ok(()) }
    });
    walked.is_ok() && found == count
}

/// The first path of a payload that is a directory of another; it cannot be both.
pub(super) fn conflict<'a>(payload: &'a Payload<'_>) -> Option<&'a Path> {
    payload.keys().find(|path| path.ancestors().skip(1).any(|above| payload.contains_key(above))).map(PathBuf::as_path)
}

#[cfg(test)]
mod tests;
