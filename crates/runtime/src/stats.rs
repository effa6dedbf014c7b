//! Resource use of containers.

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
    /// Id of the container.
    pub id: ContainerId,
    /// Time of the reading.
    pub timestamp: Timestamp,
    /// CPU time used since the start, ns.
    #[serde(default)]
    pub cpu_usage_ns: u64,
    /// Memory charged to its cgroup, bytes.
    #[serde(default)]
    pub memory_usage: u64,
    /// `memory_usage` less inactive file pages, bytes: the part that the kernel cannot reclaim easily.
    #[serde(default)]
    pub memory_working_set: u64,
    /// Number of processes and threads.
    #[serde(default)]
    pub pids: u64,
}

/// Disk usage of one container's own files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUsage {
    /// Writable layer, bytes: the files that the container has written to its root file system, outside its mounts.
    #[serde(default)]
    pub writable_layer: u64,
    /// Output that the runtime stores, bytes; zero if the output is in files at `log_path`.
    #[serde(default)]
    pub logs: u64,
}
