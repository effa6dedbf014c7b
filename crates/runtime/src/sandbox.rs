//! What a sandbox is made from.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// The environment that the containers of one pod share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Name of the pod, node suffix included.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// UID of the pod; with `attempt` it identifies the sandbox.
    pub uid: String,
    /// How many sandboxes this pod had before.
    #[serde(default)]
    pub attempt: u32,
    /// Host name inside the pod; empty keeps the node's (host network).
    #[serde(default)]
    pub hostname: String,
    /// Own network or the node's.
    #[serde(default)]
    pub network: NetworkMode,
    /// Ports of the node that lead into the pod.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Parent of the cgroups of the pod's containers, relative to the backend's own root, e.g. `pod4f2a…`.
    #[serde(default)]
    pub cgroup: String,
    /// Kept with the sandbox and reported by `list`; see [`labels`](crate::labels).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Whose network a pod uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkMode {
    /// A network namespace of its own, connected as the backend's configuration says.
    #[default]
    Pod,
    /// The node's network namespace.
    Host,
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Port on the node, 1 to 65535.
    pub host_port: u16,
    /// Port in the pod, 1 to 65535.
    pub container_port: u16,
    /// The address of the node to listen on; `None` means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}
