//! A runtime's own view of a node, whichever runtime it is.

use anyhow::Result;

use crate::{
    ctr::{self, Ctr, Record, Running},
    docker::Engine,
};

/// Runtime of a node's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// containerd.
    #[default]
    Containerd,
    /// dockerd, on a containerd.
    Docker,
    /// The containerd of K3s.
    K3s,
}

impl Backend {
    /// Returns the runtime that `STANCHION_TEST_BACKEND` names, for tests that do not choose one themselves.
    ///
    /// # Panics
    /// When the variable has another value.
    #[must_use]
    pub fn chosen() -> Self {
        match std::env::var("STANCHION_TEST_BACKEND").as_deref() {
            Err(_) | Ok("" | "containerd") => Self::Containerd,
            Ok("docker") => Self::Docker,
            Ok("k3s") => Self::K3s,
            Ok(other) => panic!("STANCHION_TEST_BACKEND={other}: expected containerd, docker or k3s"),
        }
    }

    /// Returns its name in the agent's configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::K3s => "k3s",
        }
    }
}

/// Client of a node's runtime.
#[derive(Debug)]
pub enum View {
    /// Client of containerd, in the agent's namespace.
    Containerd(Ctr),
    /// Client of Docker.
    Docker(Engine),
}

impl View {
    /// Returns the ids of all containers, sandboxes included, running or not.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn containers(&self) -> Result<Vec<String>> {
        match self {
            Self::Containerd(ctr) => ctr.containers(),
            Self::Docker(engine) => engine.containers(),
        }
    }

    /// Returns a table of all containers with their images.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn table(&self) -> Result<String> {
        match self {
            Self::Containerd(ctr) => ctr.run(&["containers", "ls"]),
            Self::Docker(engine) => {
                let row = |one: &serde_json::Value| {
                    format!("{} {} {} {}", one["Names"], one["Image"], one["State"], one["Status"])
                };
                Ok(engine.all()?.iter().map(row).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// Returns the names of all images.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn images(&self) -> Result<Vec<String>> {
        match self {
            Self::Containerd(ctr) => ctr.images(),
            Self::Docker(engine) => engine.images(),
        }
    }

    /// Removes a container, running or not, without the agent's knowledge.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn destroy(&self, id: &str) -> Result<()> {
        match self {
            Self::Containerd(ctr) => {
                ctr.run(&["tasks", "delete", "--force", id])?;
                ctr.run(&["containers", "delete", id]).map(drop)
            }
            Self::Docker(engine) => engine.remove(id),
        }
    }

    /// Returns a container's record; `None` when it is gone.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn record(&self, id: &str) -> Result<Option<Record>> {
        match self {
            Self::Containerd(ctr) => ctr.record(id),
            Self::Docker(engine) => engine.record(id),
        }
    }

    /// Returns the running containers of all pods, without sandboxes.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn running(&self) -> Result<Vec<Running>> {
        match self {
            Self::Containerd(ctr) => ctr.running(),
            Self::Docker(engine) => engine.running(),
        }
    }

    /// Returns the running containers of one pod, sorted by container name.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub fn of_pod(&self, pod: &str) -> Result<Vec<Running>> {
        Ok(ctr::of_pod(self.running()?, pod))
    }
}
