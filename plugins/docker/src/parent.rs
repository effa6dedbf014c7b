//! The cgroup of a pod, around those of its containers, as Docker's driver names it.

use std::path::Path;

use stanchion_sdk::{
    cgroup::{Cgroup, is_plain},
    runtime::{Error, ErrorKind, Result},
};

/// Who makes cgroups for Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    /// runc itself: a parent is a path.
    Files,
    /// systemd: a parent is a slice.
    Systemd,
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// What Docker takes.
    pub name: String,
    /// Where it is, from the root of every hierarchy.
    pub path: String,
}

impl Parent {
    /// The cgroup `pod` below `root`.
    pub fn of(driver: Driver, root: &str, pod: &str) -> Result<Self> {
        let below = Path::new(pod);
        if below.is_absolute() || !is_plain(below) {
            let message = format!("cgroup {pod:?}: expected a path that only goes down");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let parts = root.split('/').chain(pod.split('/')).filter(|part| !part.is_empty());
        Ok(match driver {
            Driver::Files => {
                let path: String = parts.map(|part| format!("/{part}")).collect();
                Self { name: path.clone(), path }
            }
            Driver::Systemd => {
                // systemd.slice(5): a dash in a slice's name goes one level down, and every level has the whole name.
                let mut name = String::new();
                let mut path = String::new();
                for part in parts {
                    if !name.is_empty() {
                        name.push('-');
                    }
                    name.push_str(&part.replace('-', "_"));
                    path.push_str(&format!("/{name}.slice"));
                }
                Self { name: format!("{name}.slice"), path }
            }
        })
    }

    /// Removes it, where nothing is in it any more.
    pub fn remove(path: &str) -> Result<()> {
        Cgroup::at(path)
            .remove()
            .map_err(|error| Error::new(ErrorKind::Other, format!("removing cgroup {path}")).caused_by(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_a_path_or_a_slice() {
        let parent = |driver, pod| Parent::of(driver, "/stanchion", pod).map(|it| (it.name, it.path));
        let same = "/stanchion/pod1-2".to_owned();
        assert_eq!(parent(Driver::Files, "pod1-2"), Ok((same.clone(), same)));
        assert_eq!(
            parent(Driver::Systemd, "pod1-2"),
            Ok(("stanchion-pod1_2.slice".to_owned(), "/stanchion.slice/stanchion-pod1_2.slice".to_owned()))
        );
        assert_eq!(parent(Driver::Systemd, ""), Ok(("stanchion.slice".to_owned(), "/stanchion.slice".to_owned())));
        for wrong in ["/a", "../a", "a/../.."] {
            assert_eq!(parent(Driver::Files, wrong).expect_err("wrong").kind(), ErrorKind::Invalid);
        }
    }
}
