//! State that the tasks of the agent share.

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

/// State that all workers, the reconciler and the other tasks share.
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
    /// Wakes the reconciler when a pod ends by itself, or runs again.
    pub pod_ended: Notify,
    /// Counter that changes after an import of images.
    pub images_changed: watch::Sender<u64>,
    /// Images from archives in the preload directory.
    pub imports: Imports,
    /// Phase of the node's shutdown.
    pub node_shutdown: Arc<ShutdownState>,
    /// CPU and memory of the node. Its `ephemeral_storage` is 0, since the disk can grow.
    pub capacity: Capacity,
    /// Current addresses of the node, the primary one first.
    pub node_addresses: watch::Receiver<Vec<IpAddr>>,
    /// Security features and allowed sysctls of the node.
    pub admission: Admission,
    /// UID/GID ranges of pods with `hostUsers: false`.
    pub id_ranges: IdRanges,
    /// Credential provider plugins of the node.
    pub providers: Providers,
    /// Search for processes of pods whose backends do not answer.
    pub processes: PodProcesses,
}

impl<R> Shared<R> {
    /// Returns the backend of this name.
    pub fn slot(&self, name: &str) -> Option<&BackendSlot<R>> {
        self.slots.iter().find(|slot| slot.backend.name == name)
    }

    /// Returns the node's resources that cgroup values depend on.
    pub fn machine(&self) -> Machine<'static> {
        Machine { memory: self.capacity.memory, hugepage_sizes: node::hugepage_sizes() }
    }
}
