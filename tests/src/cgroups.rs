//! Cgroup driver of a node's containers.

/// Cgroup driver, as containerd and Docker call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `cgroupfs`: the OCI runtime makes the cgroups.
    Files,
    /// `systemd`: systemd makes the cgroups; it must be the machine's first process.
    Systemd,
}

impl Driver {
    /// Returns the driver that `STANCHION_TEST_CGROUP_DRIVER` names, `systemd` or (the default) `cgroupfs`.
    #[must_use]
    pub fn chosen() -> Self {
        match std::env::var("STANCHION_TEST_CGROUP_DRIVER").as_deref() {
            Ok("systemd") => Self::Systemd,
            _ => Self::Files,
        }
    }

    /// Returns its name in Docker's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// Returns a cgroup root for a backend's configuration. For systemd, dashes are replaced: they would make nested
    /// slices (systemd.slice(5)).
    pub(crate) fn root(self, name: &str) -> String {
        match self {
            Self::Files => format!("/{name}"),
            Self::Systemd => format!("/{}", name.replace('-', "_")),
        }
    }

    /// Returns the path of a root in every hierarchy.
    pub(crate) fn path(self, root: &str) -> String {
        match self {
            Self::Files => root.to_owned(),
            Self::Systemd => format!("{root}.slice"),
        }
    }

    /// Returns the part of a pod's cgroup path before its UID, from the QoS class on.
    #[must_use]
    pub fn pods(self, class: &str) -> String {
        match self {
            Self::Files => format!("/{class}/pod"),
            Self::Systemd => format!("-{class}-pod"),
        }
    }

    /// Returns the setting of the containerd backend for this driver.
    pub(crate) fn of_containerd(self) -> &'static str {
        match self {
            Self::Files => "",
            Self::Systemd => "systemd_cgroup = true\n",
        }
    }

    /// Returns the parent as Docker takes it: a path, or the name of a slice.
    pub(crate) fn parent(self, path: &str) -> &str {
        match self {
            Self::Files => path,
            Self::Systemd => path.trim_start_matches('/'),
        }
    }
}
