//! The sandboxes and containers of a pod, as a backend lists them.

use stanchion_runtime::{ContainerInfo, Inventory, SandboxInfo};

/// Sandboxes and containers of one pod on one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// Sandboxes, oldest attempt first.
    pub sandboxes: Vec<SandboxInfo>,
    /// Containers, oldest attempt first.
    pub containers: Vec<ContainerInfo>,
}

impl Remains {
    /// Sorts what a backend listed of the pod.
    #[must_use]
    pub fn of(Inventory { mut sandboxes, mut containers }: Inventory) -> Self {
        // The attempt numbers come first: the clock may have been set back since an earlier one was made.
        sandboxes.sort_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
        containers.sort_by_key(|container| (container.attempt, container.created_at));
        Self { sandboxes, containers }
    }
}
