//! Observed state of one pod, on all backends.

use stanchion_pod::Pod;
use stanchion_runtime::{ContainerInfo, SandboxId, SandboxInfo};

use super::{is_of_revision, is_running};
use crate::observed::{Observed, ObservedPod};

/// One pod in the latest observations.
#[derive(Clone, Debug)]
pub struct View {
    /// Name of the backend that the pod runs on: its own, or its fallback.
    pub backend: String,
    /// Sandboxes and containers of the pod, by backend.
    pub observed: Observed,
}

/// One instance of a container, with its sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// The container.
    pub container: &'a ContainerInfo,
    /// The sandbox that it is in.
    pub sandbox: &'a SandboxInfo,
}

impl View {
    /// Returns the sandboxes on `backend`, oldest first.
    pub fn sandboxes(&self) -> impl DoubleEndedIterator<Item = &SandboxInfo> {
        self.pods().flat_map(|pod| &pod.sandboxes)
    }

    /// Returns the containers of a sandbox on `backend`, oldest first.
    pub fn containers(&self, sandbox: &SandboxId) -> impl DoubleEndedIterator<Item = &ContainerInfo> {
        self.pods().flat_map(|pod| &pod.containers).filter(move |container| container.sandbox == *sandbox)
    }

    /// Returns the containers on `backend` whose sandbox is gone.
    pub fn without_sandbox(&self) -> impl Iterator<Item = &ContainerInfo> {
        let is_alone = |container: &&ContainerInfo| !self.sandboxes().any(|sandbox| sandbox.id == container.sandbox);
        self.pods().flat_map(|pod| &pod.containers).filter(is_alone)
    }

    /// Returns whether a container runs in a sandbox.
    pub fn is_alive(&self, sandbox: &SandboxInfo) -> bool {
        self.containers(&sandbox.id).any(is_running)
    }

    /// Returns the instances of a container of this revision of the pod, oldest first.
    pub fn instances(&self, pod: &Pod, name: &str) -> Vec<Instance<'_>> {
        let mut instances: Vec<_> = self
            .sandboxes()
            .filter(|sandbox| is_of_revision(sandbox, pod))
            .flat_map(|sandbox| self.containers(&sandbox.id).map(move |container| Instance { container, sandbox }))
            .filter(|instance| instance.container.name == name)
            .collect();
        instances.sort_by_key(|instance| (instance.container.attempt, instance.container.created_at));
        instances
    }

    /// Returns the newest instance of a container of this revision of the pod.
    pub fn newest(&self, pod: &Pod, name: &str) -> Option<Instance<'_>> {
        self.instances(pod, name).pop()
    }

    fn pods(&self) -> impl DoubleEndedIterator<Item = &ObservedPod> {
        self.observed.backends().filter(|(backend, _)| *backend == self.backend).map(|(_, pod)| pod)
    }
}
