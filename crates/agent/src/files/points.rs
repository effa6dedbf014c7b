//! Makes mount points in volumes that the agent writes. No container can write such a volume, so the agent makes the
//! points at which a manifest mounts something below it beforehand, as a kubelet does (R-VOL-8).

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
};

use stanchion_pod::{Pod, SubPath};

use super::etc;

/// Points below a volume at which its pod's containers mount something, by their paths in the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Points {
    /// Points below mounts of the whole volume.
    pub whole: BTreeSet<PathBuf>,
    /// Points below mounts of a part of it (`subPath`).
    pub parts: BTreeSet<PathBuf>,
}

impl Points {
    /// Finds the points of one volume.
    pub fn of(pod: &Pod, volume: &str) -> Self {
        let mut points = Self::default();
        for container in pod.all_containers() {
            let managed = etc::PLACES.into_iter().chain(container.message_path.as_deref()).map(clean);
            let all: Vec<_> = container.mounts.iter().map(|mount| clean(&mount.path)).chain(managed).collect();
            for mount in container.mounts.iter().filter(|mount| mount.volume == volume) {
                let (at, part) = (
                    clean(&mount.path),
                    match &mount.sub_path {
                        None => None,
                        Some(SubPath::Path(path)) => Some(clean(path)),
                        // Its path depends on the container's environment, which is not known here.
                        Some(SubPath::Expression(_)) => continue,
                    },
                );
                let nearest = |place: &&PathBuf| enclosing(place, all.iter().map(PathBuf::as_path)) == Some(&at);
                for place in all.iter().filter(nearest) {
                    let below = place.strip_prefix(&at).expect("it encloses it").to_owned();
                    // Names that begin with `..` are those of the links and directories in which the agent keeps the
                    // files: nothing is mounted there (R-VOL-8).
                    if below.as_os_str().as_bytes().starts_with(b"..") {
                        continue;
                    }
                    match &part {
                        None => points.whole.insert(below),
                        Some(part) => points.parts.insert(part.join(below)),
                    };
                }
            }
        }
        points
    }

    /// Returns whether a container mounts something at a path of the volume or below it.
    pub fn are_at_or_below(&self, path: &Path) -> bool {
        self.whole.iter().any(|point| point.starts_with(path))
    }
}

/// Returns the nearest of these paths that is above `place`.
pub(crate) fn enclosing<'a>(place: &Path, all: impl Iterator<Item = &'a Path>) -> Option<&'a Path> {
    all.filter(|other| *other != place && place.starts_with(other)).max_by_key(|other| other.components().count())
}

/// Makes the mount point `path`, a directory or a file, in a volume or in a part of one, unless it is there.
pub(crate) fn make(volume: &Path, path: &Path, is_directory: bool) -> io::Result<()> {
    let place = volume.join(path);
    if fs::metadata(&place).is_ok() {
        return Ok(());
    }
    let directories = || {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder
    };
    if is_directory {
        return directories().create(&place);
    }
    if let Some(parent) = place.parent() {
        directories().create(parent)?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o644).open(&place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Cleans a path in a container as runtimes do: from the root, without `.` and `..`.
pub(crate) fn clean(path: impl AsRef<Path>) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.as_ref().components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(mounts: &str, volume: &str) -> (Vec<String>, Vec<String>) {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec:\n  volumes: [{{name: v, secret: {{secretName: s}}}}, \
             {{name: w, configMap: {{name: c}}}}, {{name: e, emptyDir: {{}}}}]\n  containers: [{{name: c, image: a, \
             volumeMounts: [{mounts}]}}]\n"
        );
        let decoded = stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}"));
        let Points { whole, parts } = Points::of(&decoded.pods[0], volume);
        let list = |set: BTreeSet<PathBuf>| set.iter().map(|path| path.display().to_string()).collect();
        (list(whole), list(parts))
    }

    #[test]
    fn a_mount_is_in_the_nearest_volume_above_it() {
        let mount = |name: &str, path: &str| format!("{{name: {name}, mountPath: {path}}}");
        let all = [mount("v", "/a"), mount("w", "/a/b/"), mount("e", "/a/b/../b/c"), mount("e", "/ab")].join(", ");
        assert_eq!(points(&all, "v"), (vec!["b".to_owned()], vec![]));
        assert_eq!(points(&all, "w"), (vec!["c".to_owned()], vec![]));
        assert_eq!(points(&all, "e"), (vec![], vec![]));
        let kept = [mount("v", "/a"), mount("e", "/a/..data/b"), mount("w", "/a/..data")].join(", ");
        assert_eq!(points(&kept, "v"), (vec![], vec![]), "the links of the volume stay what they are");
        let part = format!("{{name: v, mountPath: /a, subPath: d}}, {}", mount("e", "/a/b"));
        assert_eq!(points(&part, "v"), (vec![], vec!["d/b".to_owned()]));
    }

    #[test]
    fn the_files_that_the_agent_manages_are_mounted_too() {
        let (whole, _) = points("{name: v, mountPath: /etc}", "v");
        assert_eq!(whole, ["hostname", "hosts", "resolv.conf"]);
        assert_eq!(points("{name: v, mountPath: /dev}", "v").0, ["termination-log"]);
    }

    #[test]
    fn a_point_is_made_once_and_what_is_there_stays() {
        let volume = tempfile::tempdir().expect("a directory");
        for _ in 0..2 {
            make(volume.path(), Path::new("a/b"), true).expect("made");
            make(volume.path(), Path::new("a/c"), false).expect("made");
        }
        assert!(volume.path().join("a/b").is_dir() && volume.path().join("a/c").is_file());
        assert!(make(volume.path(), Path::new("a/c/d"), true).is_err(), "a file has nothing below it");
    }
}
