//! The cgroup of a pod, which contains those of its containers, under the name that the runtime's cgroup driver uses
//! (R-RES-2).

use std::{io, path::Path};

use stanchion_runtime::{Error, ErrorKind, LinuxResources, Result};

use super::{Cgroup, is_plain, limits, systemd};

/// Cgroup driver of a runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// The OCI runtime creates cgroups itself: a parent is a path.
    #[default]
    Files,
    /// systemd creates cgroups: a parent is a slice.
    Systemd,
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Name of the cgroup as the runtime takes it.
    pub name: String,
    /// Path from the root of every hierarchy.
    pub path: String,
    /// Path of Stanchion's root cgroup, likewise.
    root: String,
    driver: Driver,
}

impl Parent {
    /// Returns the cgroup `pod` below `root`.
    ///
    /// # Errors
    /// `Invalid`: `pod` is absolute or does not only go down.
    pub fn of(driver: Driver, root: &str, pod: &str) -> Result<Self> {
        let below = Path::new(pod);
        if below.is_absolute() || !is_plain(below) {
            let message = format!("cgroup {pod:?}: expected a path that only goes down");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let (_, root_path) = named(driver, root);
        let (name, path) = named(driver, &format!("{root}/{pod}"));
        Ok(Self { name, path, root: root_path, driver })
    }

    /// Returns the cgroup at a path that [`of`](Parent::of) has returned earlier.
    #[must_use]
    pub fn at(driver: Driver, root: &str, path: &str) -> Self {
        let (_, root_path) = named(driver, root);
        let name = match driver {
            Driver::Files => path.to_owned(),
            Driver::Systemd => path.rsplit('/').next().unwrap_or_default().to_owned(),
        };
        Self { name, path: path.to_owned(), root: root_path, driver }
    }

    /// Returns a container's cgroup in it: the name for the OCI runtime, and the path.
    #[must_use]
    pub fn container(&self, id: &str) -> (String, String) {
        match self.driver {
            Driver::Files => {
                let path = format!("{}/{id}", self.path);
                (path.clone(), path)
            }
            Driver::Systemd => {
                // The name of a scope is unique on the machine, whatever its slice: two roots may have a container of
                // the same id.
                let root = self.root.rsplit('/').next().unwrap_or_default().trim_end_matches(".slice");
                (format!("{}:{root}:{id}", self.name), format!("{}/{root}-{id}.scope", self.path))
            }
        }
    }

    /// Creates the cgroup with the pod's limits, and updates the CPU weights of its parents. Blocks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make(&self, resources: &LinuxResources) -> Result<()> {
        let made = match self.driver {
            Driver::Files => limits::make(Path::new(&self.path), resources).and_then(|()| self.weigh()),
            Driver::Systemd => systemd::outlive(&self.root).and_then(|()| systemd::limit(&self.name, resources)),
        };
        made.map_err(|error| {
            Error::new(ErrorKind::Other, format!("making cgroup {} of a pod", self.path)).caused_by(&error)
        })
    }

    /// Removes the cgroup if it is empty, and its empty parents below the root. Blocks.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove(&self) -> Result<()> {
        let removed = match self.driver {
            Driver::Files => self.remove_files(),
            Driver::Systemd => self.remove_files().and_then(|()| systemd::forget(&self.name)),
        };
        removed
            .map_err(|error| Error::new(ErrorKind::Other, format!("removing cgroup {}", self.path)).caused_by(&error))
    }

    fn remove_files(&self) -> io::Result<()> {
        Cgroup::at(&self.path).remove()?;
        for around in self.around() {
            Cgroup::at(&around.to_string_lossy()).remove()?;
        }
        self.weigh()
    }

    /// Returns the cgroups between this one and the root, from the inside out.
    fn around(&self) -> impl Iterator<Item = &Path> {
        let root = Path::new(&self.root);
        Path::new(&self.path).ancestors().skip(1).take_while(move |it| *it != root && it.starts_with(root))
    }

    /// Updates the CPU weights of the cgroups between this one and the root: a QoS class weighs as much as its pods
    /// together (R-RES-5).
    fn weigh(&self) -> io::Result<()> {
        self.around().try_for_each(limits::weigh)
    }
}

fn named(driver: Driver, path: &str) -> (String, String) {
    let parts = path.split('/').filter(|part| !part.is_empty());
    match driver {
        Driver::Files => {
            let path: String = parts.map(|part| format!("/{part}")).collect();
            (path.clone(), path)
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
            (format!("{name}.slice"), path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_a_path_or_a_slice() {
        let parent = |driver, pod| Parent::of(driver, "/stanchion", pod).map(|it| (it.name, it.path));
        let same = "/stanchion/burstable/pod1-2".to_owned();
        assert_eq!(parent(Driver::Files, "burstable/pod1-2"), Ok((same.clone(), same)), "R-RES-2");
        let slice = "/stanchion.slice/stanchion-burstable.slice/stanchion-burstable-pod1_2.slice";
        let named = Ok(("stanchion-burstable-pod1_2.slice".to_owned(), slice.to_owned()));
        assert_eq!(parent(Driver::Systemd, "burstable/pod1-2"), named, "R-RES-2");
        assert_eq!(parent(Driver::Systemd, ""), Ok(("stanchion.slice".to_owned(), "/stanchion.slice".to_owned())));
        for wrong in ["/a", "../a", "a/../.."] {
            assert_eq!(parent(Driver::Files, wrong).expect_err("wrong").kind(), ErrorKind::Invalid);
        }
    }

    #[test]
    fn a_container_is_below_its_pod() {
        let parent = |driver| Parent::of(driver, "/stanchion", "pod1-2").expect("a path");
        let (name, path) = parent(Driver::Files).container("a-0");
        assert_eq!((name.as_str(), path.as_str()), ("/stanchion/pod1-2/a-0", "/stanchion/pod1-2/a-0"));
        let (name, path) = parent(Driver::Systemd).container("a-0");
        assert_eq!(name, "stanchion-pod1_2.slice:stanchion:a-0", "as runc takes it");
        assert_eq!(path, "/stanchion.slice/stanchion-pod1_2.slice/stanchion-a-0.scope");
    }

    #[test]
    fn only_what_is_below_the_root_is_around_a_pod() {
        let around = |pod| {
            let parent = Parent::of(Driver::Files, "/ours/here", pod).expect("a path");
            parent.around().map(|it| it.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(around("burstable/pod1"), ["/ours/here/burstable"]);
        assert_eq!(around("pod1"), Vec::<String>::new());
    }
}
