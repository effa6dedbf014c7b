//! Resource use.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ContainerId;

/// Resource use of all running containers of one runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// One entry per running container.
    pub containers: Vec<ContainerStats>,
}

/// Resource use of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// Which.
    pub id: ContainerId,
    /// When it was read.
    pub timestamp: Timestamp,
    /// CPU time used since the start, ns.
    #[serde(default)]
    pub cpu_usage_ns: u64,
    /// Memory charged to its cgroup, bytes.
    #[serde(default)]
    pub memory_usage: u64,
    /// `memory_usage` less inactive file pages, bytes: what cannot be reclaimed easily.
    #[serde(default)]
    pub memory_working_set: u64,
    /// Number of processes and threads.
    #[serde(default)]
    pub pids: u64,
}

/// What one container's own files take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Its writable layer, bytes: what it has written to its root file system, outside its mounts.
    #[serde(default)]
    pub writable_layer: u64,
    /// What the runtime keeps of its output, bytes; nothing where that is in files at `log_path`.
    #[serde(default)]
    pub logs: u64,
}
