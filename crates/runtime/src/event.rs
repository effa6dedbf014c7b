//! Hints that something happened in a runtime.

use serde::{Deserialize, Serialize};

use crate::{ContainerId, SandboxId};

/// Something happened; look with `list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened in the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A container's first process started.
    Started {
        /// Which.
        container: ContainerId,
    },
    /// A container's first process ended.
    Exited {
        /// Which.
        container: ContainerId,
    },
    /// The kernel killed a process of a container for lack of memory.
    OutOfMemory {
        /// Which.
        container: ContainerId,
    },
    /// A sandbox changed or was lost.
    SandboxChanged {
        /// Which.
        sandbox: SandboxId,
    },
    /// Events were lost, or the subscription has just begun.
    Resync,
    /// Anything else; reported by a backend newer than this agent.
    #[serde(other)]
    Unknown,
}

impl From<EventKind> for Event {
    fn from(kind: EventKind) -> Self {
        Self { kind }
    }
}
