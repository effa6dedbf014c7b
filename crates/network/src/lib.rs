//! The network of pods on this node, and the namespaces that hold it: CNI plugins if they are configured, else a bridge
//! of the agent's own.
//!
//! # Layout
//! - [`Network`]: attaches and detaches, through `bridge` or `cni`. [`NetworkConfig`]: its settings.
//! - [`namespaces`]: a pod's namespaces, of which the network is one.
//! - `leases`: owners of addresses and ports. `links`: links by netlink. `parameters`: kernel parameters.
//! - `rules`: packet filter rules, made from the leases. `filter`: keeps them in force. `forward`: other programs'
//!   rules.
//! - `netfilter`: the packet filter by netlink. `commands`: its programs. [`watch`](watch()): network events
//!   of the kernel.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod bridge;
mod cni;
mod commands;
mod filter;
mod forward;
mod leases;
mod limits;
mod links;
pub mod namespaces;
mod netfilter;
mod parameters;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::HashSet,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use stanchion_runtime::{Error, ErrorKind, Health, NodePaths, Result, SandboxConfig};

use bridge::Bridge;
use cni::Cni;
pub use watch::watch;

/// Separator of the obstacles in the health's message.
pub const SEPARATOR: &str = " | ";

/// Settings of the pods' network, such as `[backend.containerd.network]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Name of the bridge on the node; at most 15 characters.
    pub bridge: String,
    /// Subnet of the pods' addresses; the bridge has its first address.
    pub subnet: String,
    /// CNI configuration list. If set, CNI plugins attach the pods, and `bridge` and `subnet` are not used.
    pub cni_config: Option<PathBuf>,
    /// Directories of the CNI plugins' programs; the first that has a program counts.
    pub cni_bin_dirs: Vec<PathBuf>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            bridge: "stanchion0".to_owned(),
            subnet: "10.213.0.0/16".to_owned(),
            cni_config: None,
            cni_bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
        }
    }
}

/// Health state: pods cannot be connected.
const NOT_READY: &str = "network-not-ready";

/// Pod network of one agent.
#[derive(Clone, Debug)]
pub struct Network {
    bridge: Bridge,
    cni: Cni,
}

impl Network {
    /// Makes the network of an agent; it changes nothing on the node before the first pod.
    ///
    /// # Errors
    /// `Invalid`: a setting is wrong.
    pub fn new(config: &NetworkConfig, node: &NodePaths) -> Result<Self> {
        Ok(Self { bridge: Bridge::new(config, &node.run_dir)?, cni: Cni::new(config, node)? })
    }

    /// Repairs the agent's own network. The backend calls it when something has changed, and with `at_everything` on
    /// each full list: then it also checks what the kernel does not report.
    pub fn repair(&self, at_everything: bool) {
        self.bridge.repair(at_everything);
    }

    /// Returns the network's health, as far as it is known without a pod: a fault is reported before the first one.
    #[must_use]
    pub fn health(&self) -> Health {
        let (state, message) = match self.cni.config() {
            // Pods on the host's network need no other (R-SYNC-2).
            Some(_) => match self.cni.check() {
                Ok(()) => return Health::default(),
                Err(error) => (NOT_READY, error.chain()),
            },
            None => match self.bridge.diagnose() {
                (Some(failure), _) => (NOT_READY, failure),
                (None, obstacles) if obstacles.is_empty() => return Health::default(),
                (None, obstacles) => {
                    let (state, message) = ("network-obstructed".to_owned(), obstacles.join(SEPARATOR));
                    return Health { state, message, failover: None };
                }
            },
        };
        let message = format!("{message}; pods with a network of their own wait for it");
        Health { state: state.to_owned(), message, failover: None }
    }

    /// Connects a network namespace. After a partial failure, it starts over.
    ///
    /// # Errors
    /// The pod cannot be connected: `Unavailable` while the CNI configuration list cannot be used, `Conflict` for a
    /// port of the node that another sandbox has, `Unsupported` for a port that nothing can publish.
    pub fn attach(&self, id: &str, namespace: &Path, pod: &SandboxConfig) -> Result<Vec<IpAddr>> {
        self.detach(id, namespace)?;
        match self.cni.config() {
            Some(config) => self.cni.attach(config, id, namespace, pod),
            None => self.bridge.attach(id, namespace, &pod.port_mappings),
        }
    }

    /// Frees address and ports in the same way as they were obtained: the configuration may have changed since.
    ///
    /// # Errors
    /// A CNI plugin fails, or a lease cannot be removed.
    pub fn detach(&self, id: &str, namespace: &Path) -> Result<()> {
        self.cni.detach(id, namespace)?;
        self.bridge.detach(id)
    }

    /// Removes a sandbox's link, in case the kernel does not remove it with the namespace at once.
    pub fn unlink(&self, id: &str) {
        self.bridge.unlink(id);
    }

    /// Returns every sandbox that holds an address, a port or a CNI attachment.
    ///
    /// # Errors
    /// The leases or the attachments cannot be listed.
    pub fn holders(&self) -> Result<HashSet<String>> {
        let holders = self.cni.holders().and_then(|mut holders| {
            holders.extend(self.bridge.holders()?);
            Ok(holders.into_iter().collect())
        });
        holders.map_err(|error| Error::new(ErrorKind::Other, "listing who is on the network").caused_by(&error))
    }
}
