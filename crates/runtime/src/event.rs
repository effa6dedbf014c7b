//! Hints of changes in a runtime.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, SandboxId};

/// A hint that something changed; `list` tells the new state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Kind of the change.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// Kind of a change in the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A container's first process started.
    Started {
        /// Id of the container.
        container: ContainerId,
    },
    /// A container's first process ended.
    Exited {
        /// Id of the container.
        container: ContainerId,
    },
    /// The kernel's OOM killer killed a process of a container.
    OutOfMemory {
        /// Id of the container.
        container: ContainerId,
    },
    /// A sandbox changed or was lost.
    SandboxChanged {
        /// Id of the sandbox.
        sandbox: SandboxId,
    },
    /// Events may have been lost, or the subscription has just begun.
    Resync,
    /// Any other event, from a backend newer than this agent.
    #[serde(other)]
    Unknown,
}

impl From<EventKind> for Event {
    fn from(kind: EventKind) -> Self {
        Self { kind }
    }
}
