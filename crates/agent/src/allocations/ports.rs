//! Host ports of pods: each goes to one pod (R-ADM-5).

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use stanchion_pod::{Pod, PodKey, Protocol};

/// Host port that a pod asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct HostPort {
    protocol: Protocol,
    port: u16,
    /// Address of the node; `None` means all.
    ip: Option<IpAddr>,
}

impl HostPort {
    /// Returns whether two pods cannot have both of these at the same time.
    fn conflicts_with(self, other: Self) -> bool {
        let is_same_address = self.ip.is_none() || other.ip.is_none() || self.ip == other.ip;
        (self.protocol, self.port) == (other.protocol, other.port) && is_same_address
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, ip } = self;
        let protocol = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{port}/{protocol}").and_then(|()| ip.map_or(Ok(()), |ip| write!(f, " of {ip}")))
    }
}

/// Host ports, with the pods that have them.
#[derive(Debug, Default)]
pub(super) struct Ports(HashMap<(Protocol, u16), Vec<(HostPort, PodKey)>>);

impl Ports {
    /// Gives a pod its ports, even if another pod has them.
    pub fn assign(&mut self, pod: &Pod) {
        for port in wanted(pod) {
            self.0.entry((port.protocol, port.port)).or_default().push((port, pod.key.clone()));
        }
    }

    /// Releases the ports of a pod.
    pub fn release(&mut self, key: &PodKey) {
        self.0.retain(|_, owners| {
            owners.retain(|(_, owner)| owner != key);
            !owners.is_empty()
        });
    }

    /// Returns the first port of a pod that another pod has, as text, with that pod.
    pub fn conflict(&self, pod: &Pod) -> Option<(String, &PodKey)> {
        wanted(pod).find_map(|port| {
            let mut owners = self.0.get(&(port.protocol, port.port)).into_iter().flatten();
            let is_taken = |(taken, owner): &&(HostPort, PodKey)| *owner != pod.key && taken.conflicts_with(port);
            owners.find(is_taken).map(|(taken, owner)| (taken.to_string(), owner))
        })
    }
}

/// Returns the host ports that a pod asks for, each once. Only containers that run as long as the pod have some
/// (R-SYNC-9).
fn wanted(pod: &Pod) -> impl Iterator<Item = HostPort> {
    let sidecars = pod.init_containers.iter().filter(|init| init.runs_always());
    let ports = sidecars.chain(&pod.containers).flat_map(|container| &container.ports);
    let mut seen = HashSet::new();
    ports.filter_map(move |port| {
        // With `hostNetwork` a container's port is a port of the node (R-VAL-32).
        let number = port.host_port.or(pod.host_network.then_some(port.container_port))?;
        let ip = port.host_ip.filter(|ip| !ip.is_unspecified());
        let port = HostPort { protocol: port.protocol, port: number, ip };
        seen.insert(port).then_some(port)
    })
}
