//! What a backend is opened with.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything a backend learns when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The table `[backend.<name>]` of the agent's configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Where on the node the backend may keep things.
    #[serde(default)]
    pub node: NodePaths,
}

/// Places on the node that agent and backends share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePaths {
    /// Name of the node.
    pub node_name: String,
    /// Survives a reboot.
    pub state_dir: PathBuf,
    /// Gone after a reboot: sockets, pinned namespaces, leases.
    pub run_dir: PathBuf,
    /// Root of the container logs.
    pub log_dir: PathBuf,
    /// Where the agent's companion programs are, e.g. `stanchion-logger`.
    pub libexec_dir: PathBuf,
}
