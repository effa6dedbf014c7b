//! `[backend.containerd]`

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::{image::RegistryConfig, network::NetworkConfig};

/// Settings of the backend; all have defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// containerd's socket.
    pub socket: PathBuf,
    /// The namespace in containerd that holds everything of ours.
    pub namespace: String,
    /// What keeps the containers' files.
    pub snapshotter: String,
    /// The containerd runtime.
    pub runtime: String,
    /// Root of the containers' cgroups.
    pub cgroup_root: String,
    /// The program that writes container output; default `stanchion-logger` beside the agent.
    pub logger: Option<PathBuf>,
    /// A log file is rotated at this size, bytes.
    pub log_max_size: u64,
    /// Log files kept of one container, the current one included.
    pub log_max_files: u32,
    /// How registries are reached, by host.
    pub registry: BTreeMap<String, RegistryConfig>,
    /// The pods' network.
    pub network: NetworkConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/containerd/containerd.sock".into(),
            namespace: "stanchion".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            runtime: "io.containerd.runc.v2".to_owned(),
            cgroup_root: "/stanchion".to_owned(),
            logger: None,
            log_max_size: 10 << 20,
            log_max_files: 5,
            registry: BTreeMap::new(),
            network: NetworkConfig::default(),
        }
    }
}
