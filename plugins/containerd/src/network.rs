//! A pod's network: CNI plugins if they are configured, a bridge of our own if not.
//!
//! # Layout
//! - [`Network`]: attaches and detaches, through [`bridge`] or [`cni`].
//! - [`leases`]: who has which address and port. [`links`]: links by netlink. [`parameters`]: of the kernel.
//! - [`rules`]: the packet filter's rules, made from the leases. [`filter`]: keeps them so. [`forward`]: what others drop.
//! - [`netfilter`]: the packet filter by netlink. [`commands`]: its programs. [`watch`]: when to look.

mod bridge;
mod cni;
mod commands;
mod filter;
mod forward;
mod leases;
mod links;
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
use stanchion_sdk::runtime::{Error, ErrorKind, Health, NodePaths, Result, SandboxConfig};

use bridge::Bridge;
use cni::Cni;
pub(crate) use watch::watch;

/// The text between the obstacles that the health names.
pub const SEPARATOR: &str = " | ";

/// `[backend.containerd.network]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Name of the bridge on the node; at most 15 characters.
    pub bridge: String,
    /// Where pods' addresses come from; the first is the bridge's.
    pub subnet: String,
    /// A CNI configuration list. With it the plugins attach the pods, and bridge and subnet are not used.
    pub cni_config: Option<PathBuf>,
    /// Where the plugins' programs are; the first that has one wins.
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

/// Pods cannot be connected.
const NOT_READY: &str = "network-not-ready";

/// The pods' network of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    bridge: Bridge,
    cni: Cni,
}

impl Network {
    pub fn new(config: &NetworkConfig, node: &NodePaths) -> Result<Self> {
        Ok(Self { bridge: Bridge::new(config, &node.run_dir)?, cni: Cni::new(config, node)? })
    }

    /// Has our own network be as it is to be: called with each look at everything, then with all that the kernel tells nobody
    /// of, and when something has changed.
    pub fn look(&self, at_everything: bool) {
        self.bridge.look(at_everything);
    }

    /// How the network is, as far as can be told without connecting a pod: what is wrong is said before the first one.
    pub fn health(&self) -> Health {
        let (state, message) = match self.cni.config() {
            // Pods on the host's network need none (R-SYNC-2).
            Some(_) => match self.cni.check() {
                Ok(()) => return Health::default(),
                Err(error) => (NOT_READY, error.chain()),
            },
            None => match self.bridge.trouble() {
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

    /// Connects a network namespace. Done again after a half failure, it starts over.
    pub fn attach(&self, id: &str, namespace: &Path, pod: &SandboxConfig) -> Result<Vec<IpAddr>> {
        self.detach(id, namespace)?;
        match self.cni.config() {
            Some(config) => self.cni.attach(config, id, namespace, pod),
            None => self.bridge.attach(id, namespace, &pod.port_mappings),
        }
    }

    /// Frees address and ports, in the way that they were got: the configuration may have changed since.
    pub fn detach(&self, id: &str, namespace: &Path) -> Result<()> {
        self.cni.detach(id, namespace)?;
        self.bridge.detach(id)
    }

    /// Removes a sandbox's link where its namespace does not take it along at once.
    pub fn unlink(&self, id: &str) {
        self.bridge.unlink(id);
    }

    /// Every sandbox that has something here.
    pub fn holders(&self) -> Result<HashSet<String>> {
        let holders = self.cni.holders().and_then(|mut holders| {
            holders.extend(self.bridge.holders()?);
            Ok(holders.into_iter().collect())
        });
        holders.map_err(|error| Error::new(ErrorKind::Other, "listing who is on the network").caused_by(&error))
    }
}
