//! Parameters for opening a backend.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Parameters that a backend receives when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The table `[backend.<name>]` of the agent's configuration.
    #[serde(default)]
    pub config: serde_json::Value,
    /// Directories on the node that the backend may use.
    #[serde(default)]
    pub node: NodePaths,
}

/// Name and directories of the node that agent and backends share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodePaths {
    /// Name of the node.
    pub node_name: String,
    /// Directory that survives a reboot.
    pub state_dir: PathBuf,
    /// Directory that a reboot clears: sockets, pinned namespaces, leases.
    pub run_dir: PathBuf,
    /// Root directory of the container logs.
    pub log_dir: PathBuf,
    /// Directory of the agent's companion programs, e.g. `stanchion-logger`.
    pub libexec_dir: PathBuf,
}
