//! Configuration of a sandbox.

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
    /// Number of earlier sandboxes of this pod.
    #[serde(default)]
    pub attempt: u32,
    /// Host name inside the pod; empty keeps the node's (host network).
    #[serde(default)]
    pub hostname: String,
    /// Network of the pod: its own or the node's.
    #[serde(default)]
    pub network: NetworkMode,
    /// Ports of the node that lead into the pod.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// PID namespace of the containers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: PidMode,
    /// IPC namespace of the containers: System V IPC, message queues and `/dev/shm`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: IpcMode,
    /// ID range of the pod's user namespace; `None` runs the pod in the node's user namespace. Only for backends with
    /// [`Capabilities::user_namespaces`](crate::Capabilities::user_namespaces); others fail with
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
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
    /// Labels that the backend stores with the sandbox and reports in `list`; see [`labels`](crate::labels).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Network namespace of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NetworkMode {
    /// Network namespace of its own, connected as the backend's configuration says.
    #[default]
    Pod,
    /// Network namespace of the node.
    Host,
}

/// PID namespace of a pod's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PidMode {
    /// One namespace per container; the container's first process has PID 1.
    #[default]
    Container,
    /// One namespace for the pod; PID 1 is a process of the sandbox.
    Pod,
    /// The node's namespace.
    Host,
}

/// IPC namespace of a pod's containers: System V IPC, message queues and shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum IpcMode {
    /// The pod's own namespace.
    #[default]
    Pod,
    /// The node's namespace.
    Host,
}

/// Range of UIDs and GIDs on the node for a pod's user namespace: ID 0 in its containers is `first` on the node, and so
/// on.
///
/// Files of images and volumes keep their owners, as far as the range goes: a file that root owns on the node belongs
/// to root in the container, and a file that the container's root writes there belongs to root on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First ID on the node.
    pub first: u32,
    /// Number of IDs.
    pub length: u32,
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Name with dots, or with slashes if a part of it contains a dot (sysctl.d(5)).
    pub name: String,
    /// Value to write.
    pub value: String,
}

impl Sysctl {
    /// Returns the parameter's path below `/proc/sys`; `None` if the name would lead elsewhere. The first `.` or `/` in
    /// the name decides which of them is the separator.
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
    /// Address of the node to listen on; `None` means all.
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
