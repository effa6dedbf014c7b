//! What a sandbox is made from.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{LinuxResources, is_default};

/// The environment that the containers of one pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whose processes its containers see.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: PidMode,
    /// Whose System V IPC, message queues and `/dev/shm` its containers use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: IpcMode,
    /// Its containers' users and groups are others on the node: those of this range. Only for backends with
    /// [`Capabilities::user_namespaces`](crate::Capabilities::user_namespaces); others refuse it with
    /// [`Unsupported`](crate::ErrorKind::Unsupported). Without it they are the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<IdRange>,
    /// Kernel parameters of the pod's namespaces, set before its first container starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<Sysctl>,
    /// Parent of the cgroups of the pod's containers, relative to the backend's own root, e.g. `burstable/pod4f2a…`.
    #[serde(default)]
    pub cgroup: String,
    /// Limits and weights of that cgroup.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: LinuxResources,
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

/// Whose processes a pod's containers see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PidMode {
    /// Each its own, of which its first process is number 1.
    #[default]
    Container,
    /// Those of the whole pod; number 1 is a process of the sandbox.
    Pod,
    /// The node's.
    Host,
}

/// Whose System V IPC, message queues and shared memory a pod's containers use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IpcMode {
    /// The pod's own.
    #[default]
    Pod,
    /// The node's.
    Host,
}

/// The numbers on the node of a pod's users, and of its groups: number 0 in its containers is `first` there, and so on.
///
/// Files of images and of volumes belong in the containers to whom they belong on the node, as far as the range goes: what
/// root owns is root's in there, and what root writes in there is root's on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub length: u32,
}

/// A parameter of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Its name with dots, or with slashes where a part of it has a dot (sysctl.d(5)).
    pub name: String,
    /// What is written to it.
    pub value: String,
}

impl Sysctl {
    /// Where the kernel shows it below `/proc/sys`; `None` if it leads anywhere else. Whichever separator comes first is
    /// the one that divides.
    #[must_use]
    pub fn path(&self) -> Option<String> {
        let path: String = match self.name.find(['.', '/']).map(|first| self.name.as_bytes()[first]) {
            Some(b'/') => self.name.clone(),
            _ => self
                .name
                .chars()
                .map(|it| {
                    if it == '.' {
                        '/'
                    } else if it == '/' {
                        '.'
                    } else {
                        it
                    }
                })
                .collect(),
        };
        let is_name = |part: &str| !part.is_empty() && part != "." && part != "..";
        path.split('/').all(is_name).then_some(path)
    }
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

#[cfg(test)]
mod tests {
    use super::Sysctl;

    #[test]
    fn a_sysctl_is_a_path_below_its_root() {
        let path = |name: &str| Sysctl { name: name.to_owned(), value: String::new() }.path();
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"), "R-SEC-12");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").as_deref(), Some("net/ipv4/conf/eth0.1/forwarding"));
        for wrong in ["", "../kernel", "net...", "/etc/passwd", "a./../b"] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }
}
