//! The sandboxes and containers of a pod, as the backends list them.

use std::sync::Arc;

use stanchion_runtime::{ContainerInfo, Inventory, SandboxInfo};

/// Sandboxes and containers of one pod on one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    /// Sandboxes, oldest attempt first.
    pub sandboxes: Vec<SandboxInfo>,
    /// Containers, oldest attempt first.
    pub containers: Vec<ContainerInfo>,
}

impl ObservedPod {
    /// Sorts a backend's list of the pod.
    #[must_use]
    pub fn of(Inventory { mut sandboxes, mut containers }: Inventory) -> Self {
        // The attempt numbers come first: the clock may have been set back since an earlier one was made.
        sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
        containers.sort_by_key(|container| (container.attempt, container.created_at));
        Self { sandboxes, containers }
    }
}

/// Sandboxes and containers of one pod, by the name of the backend that listed them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed(Vec<(String, Arc<ObservedPod>)>);

impl Observed {
    /// Returns whether no backend lists anything of the pod.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the backends that listed the pod.
    pub fn backends(&self) -> impl DoubleEndedIterator<Item = (&str, &ObservedPod)> {
        self.0.iter().map(|(backend, pod)| (backend.as_str(), &**pod))
    }

    /// Iterates over the sandboxes on all backends.
    pub fn sandboxes(&self) -> impl Iterator<Item = &SandboxInfo> + Clone {
        self.0.iter().flat_map(|(_, pod)| &pod.sandboxes)
    }

    /// Iterates over the containers on all backends.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerInfo> + Clone {
        self.0.iter().flat_map(|(_, pod)| &pod.containers)
    }

    /// Returns the part that the other backends list.
    #[must_use]
    pub fn elsewhere(&self, backend: &str) -> Self {
        self.0.iter().filter(|(other, _)| other != backend).cloned().collect()
    }

    /// Moves the backends for which `is_first` holds before the others.
    pub fn put_first(&mut self, is_first: impl Fn(&str) -> bool) {
        self.0.sort_by_key(|(backend, _)| !is_first(backend));
    }
}

impl FromIterator<(String, Arc<ObservedPod>)> for Observed {
    fn from_iter<T: IntoIterator<Item = (String, Arc<ObservedPod>)>>(pods: T) -> Self {
        Self(pods.into_iter().collect())
    }
}
