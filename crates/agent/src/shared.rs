//! State shared by the workers, the reconciler and the other tasks of the agent.

use std::{net::IpAddr, sync::Arc};

use stanchion_board::{Board, EventLog};
use stanchion_plan::resources::Machine;
use stanchion_pod::Capacity;
use tokio::sync::{Notify, watch};

use crate::{
    admission::Admission,
    clock::Clock,
    config::AgentConfig,
    credentials::Providers,
    health::Heartbeat,
    id_ranges::IdRanges,
    node::{self, BackendSlot},
    node_shutdown::ShutdownState,
    preload::Imports,
    processes::PodProcesses,
    removed::Removed,
    supervisor::Supervisor,
};

/// State shared by all workers.
#[derive(Debug)]
pub(crate) struct Shared<R> {
    pub config: AgentConfig,
    pub slots: Vec<BackendSlot<R>>,
    pub board: Arc<Board>,
    pub events: Arc<EventLog>,
    pub removed: Arc<Removed>,
    pub heartbeat: Arc<Heartbeat>,
    pub clock: Clock,
    pub supervisor: Supervisor,
    /// Notified when a pod ends by itself, or runs again.
    pub pod_ended: Notify,
    /// Counter that changes after an import of images.
    pub images_changed: watch::Sender<u64>,
    /// Images imported from archives in the preload directory.
    pub imports: Imports,
    /// Pods that must end because the node shuts down.
    pub node_shutdown: Arc<ShutdownState>,
    /// CPU and memory of the node. The disk can grow: `ephemeral_storage` is 0 here.
    pub capacity: Capacity,
    /// Current addresses of the node, the primary one first.
    pub node_addresses: watch::Receiver<Vec<IpAddr>>,
    /// Security features of this node, and the sysctls that it allows.
    pub admission: Admission,
    /// UID/GID ranges of pods with `hostUsers: false`.
    pub id_ranges: IdRanges,
    /// Credential provider plugins of the node.
    pub providers: Providers,
    /// Finder of pods' processes by cgroup, for backends that do not answer.
    pub processes: PodProcesses,
}

impl<R> Shared<R> {
    /// Returns the backend of that name.
    pub fn slot(&self, name: &str) -> Option<&BackendSlot<R>> {
        self.slots.iter().find(|slot| slot.backend.name == name)
    }

    /// Returns the node, as far as the numbers of a pod's resources depend on it.
    pub fn machine(&self) -> Machine<'static> {
        Machine { memory: self.capacity.memory, hugepage_sizes: node::hugepage_sizes() }
    }
}
