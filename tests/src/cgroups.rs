//! Who makes the cgroups of a node's containers.

/// As containerd and Docker call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `cgroupfs`: the OCI runtime.
    Files,
    /// `systemd`, on a machine where it is the first process.
    Systemd,
}

impl Driver {
    /// What `STANCHION_TEST_CGROUP_DRIVER` asks for, `systemd` or (the default) `cgroupfs`.
    #[must_use]
    pub fn chosen() -> Self {
        match std::env::var("STANCHION_TEST_CGROUP_DRIVER").as_deref() {
            Ok("systemd") => Self::Systemd,
            _ => Self::Files,
        }
    }

    /// Its name in Docker's configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Files => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// A root for a backend's configuration. A dash would make levels of a slice (systemd.slice(5)).
    pub(crate) fn root(self, name: &str) -> String {
        match self {
            Self::Files => format!("/{name}"),
            Self::Systemd => format!("/{}", name.replace('-', "_")),
        }
    }

    /// Where that is in every hierarchy.
    pub(crate) fn path(self, root: &str) -> String {
        match self {
            Self::Files => root.to_owned(),
            Self::Systemd => format!("{root}.slice"),
        }
    }

    /// How the paths of a class's pods end, up to their UID.
    #[must_use]
    pub fn pods(self, class: &str) -> String {
        match self {
            Self::Files => format!("/{class}/pod"),
            Self::Systemd => format!("-{class}-pod"),
        }
    }

    /// What containerd's backend is told.
    pub(crate) fn of_containerd(self) -> &'static str {
        match self {
            Self::Files => "",
            Self::Systemd => "systemd_cgroup = true\n",
        }
    }

    /// The same parent for Docker, which takes a path or a slice's name.
    pub(crate) fn parent(self, path: &str) -> &str {
        match self {
            Self::Files => path,
            Self::Systemd => path.trim_start_matches('/'),
        }
    }
}
