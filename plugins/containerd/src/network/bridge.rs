//! The network that needs no plugins: a bridge on the node, an address for each pod, ports of the node that lead to it.

use std::{
    collections::HashSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use stanchion_sdk::runtime::{Error, ErrorKind, PortMapping, Result};
use stanchion_untrusted::{Links, open};

use super::{
    NetworkConfig,
    commands::nft,
    leases::{self, Leases, Subnet},
    links::links,
};
use crate::namespaces;

/// The bridge of one agent.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    bridge: Arc<str>,
    subnet: Subnet,
    leases: Leases,
    /// Whether bridge and rules were made by this process.
    ready: Arc<Mutex<bool>>,
}

impl Bridge {
    pub fn new(config: &NetworkConfig, run_dir: &Path) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::Invalid, message);
        if config.bridge.is_empty() || config.bridge.len() > 15 || config.bridge.contains(['/', ' ']) {
            return Err(invalid(format!("network.bridge {:?} is not a name of 1 to 15 characters", config.bridge)));
        }
        let subnet = Subnet::parse(&config.subnet)
            .ok_or_else(|| invalid(format!("network.subnet {:?} is not like 10.213.0.0/16", config.subnet)))?;
        let leases = Leases::at(run_dir.join("ipam").join(&config.bridge));
        Ok(Self { bridge: config.bridge.as_str().into(), subnet, leases, ready: Arc::default() })
    }

    /// Connects a network namespace; nothing may be leased from an earlier try.
    pub fn attach(&self, id: &str, namespace: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>> {
        let failed = |tried: &str| {
            let tried = format!("{tried} for sandbox {id}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        self.prepare()?;
        let address = self.leases.take(id, &self.subnet).map_err(failed("leasing an address"))?;
        let connected = self.connect(id, address, namespace).map_err(failed("connecting the network"));
        let connected = connected.and_then(|()| self.publish(id, address, ports));
        if let Err(error) = connected {
            if let Err(left) = self.detach(id) {
                tracing::warn!(sandbox = id, error = left.chain(), "a half connected network is left to the next try");
            }
            return Err(error);
        }
        Ok(vec![IpAddr::V4(address)])
    }

    /// Frees address and ports. The link goes with the namespace.
    pub fn detach(&self, id: &str) -> Result<()> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Other, format!("disconnecting the network of sandbox {id}")).caused_by(&error)
        };
        let ports = self.leases.ports(id).map_err(failed)?;
        if !ports.is_empty() {
            let table = self.table();
            // One by one: what is gone already must not keep the rest.
            for port in ports {
                if let Err(error) = nft(&format!("delete element ip {table} {port}\n")) {
                    tracing::debug!(sandbox = id, port, %error, "a port rule was gone already");
                }
            }
        }
        self.leases.release(id).map_err(failed)
    }

    /// Removes a sandbox's link where its namespace does not take it along at once.
    pub fn unlink(&self, id: &str) {
        let link = link(id);
        if let Err(error) = links(async |links| links.remove(&link).await) {
            tracing::debug!(sandbox = id, link, %error, "a link is left to go with its namespace");
        }
    }

    /// Every sandbox that has something.
    pub fn holders(&self) -> io::Result<HashSet<String>> {
        self.leases.holders()
    }

    fn connect(&self, id: &str, address: Ipv4Addr, namespace: &Path) -> io::Result<()> {
        let (link, pod) = (link(id), open(namespace, Links::Follow)?);
        links(async |links| links.pair(&link, &self.bridge, "eth0", pod.as_fd()).await)?;
        let (length, gateway) = (self.subnet.length, self.subnet.gateway());
        namespaces::inside(namespace, || {
            links(async |links| {
                links.bring_up("lo").await?;
                links.address("eth0", address, length, gateway).await
            })
        })
    }

    /// Leads ports of the node to the pod.
    fn publish(&self, id: &str, address: Ipv4Addr, ports: &[PortMapping]) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Other, format!("publishing the ports of sandbox {id}")).caused_by(&error)
        };
        let mut elements = Vec::with_capacity(ports.len());
        for port in ports {
            if let Some(IpAddr::V6(ip)) = port.host_ip {
                let message = format!("hostIP {ip}: pods have no IPv6 network yet; use an IPv4 address");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            self.leases.claim(id, port)?;
            let ((map, key), target) = (leases::place(port), port.container_port);
            elements.push(format!("add element ip {} {map} {{ {key} : {address} . {target} }}\n", self.table()));
        }
        nft(&elements.concat()).map_err(failed)
    }

    fn table(&self) -> String {
        format!("stanchion_{}", self.bridge).replace(['-', '.'], "_")
    }

    /// Makes bridge and rules, or finds them made.
    fn prepare(&self) -> Result<()> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let bridge = &self.bridge;
        let exists = Path::new("/sys/class/net").join(&**bridge).exists();
        if *ready && exists {
            return Ok(());
        }
        let failed = |tried: &'static str| {
            let tried = format!("{tried} {bridge}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        let (gateway, length) = (self.subnet.gateway(), self.subnet.length);
        links(async |links| links.bridge(bridge, gateway, length).await).map_err(failed("setting up bridge"))?;
        for (key, value) in
            [("net/ipv4/ip_forward".to_owned(), "1"), (format!("net/ipv4/conf/{bridge}/route_localnet"), "1")]
        {
            std::fs::write(format!("/proc/sys/{key}"), value).map_err(failed("allowing traffic over bridge"))?;
        }
        nft(&rules(&self.table(), bridge, &self.subnet)).map_err(failed("making the rules of bridge"))?;
        *ready = true;
        Ok(())
    }
}

/// The constant rules; pods only add elements to the maps.
fn rules(table: &str, bridge: &str, subnet: &Subnet) -> String {
    let subnet = subnet.to_string();
    format!(
        "add table ip {table}
add map ip {table} ports {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map ip {table} addressed {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}
add chain ip {table} prerouting {{ type nat hook prerouting priority -100 ; policy accept ; }}
add chain ip {table} output {{ type nat hook output priority -100 ; policy accept ; }}
add chain ip {table} postrouting {{ type nat hook postrouting priority 100 ; policy accept ; }}
flush chain ip {table} prerouting
flush chain ip {table} output
flush chain ip {table} postrouting
add rule ip {table} prerouting dnat ip to ip daddr . meta l4proto . th dport map @addressed
add rule ip {table} prerouting fib daddr type local dnat ip to meta l4proto . th dport map @ports
add rule ip {table} output dnat ip to ip daddr . meta l4proto . th dport map @addressed
add rule ip {table} output fib daddr type local dnat ip to meta l4proto . th dport map @ports
add rule ip {table} postrouting ip saddr {subnet} ip daddr != {subnet} masquerade
add rule ip {table} postrouting oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
add rule ip {table} postrouting oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade
"
    )
}

/// Name of a sandbox's link on the node: at most 15 characters, from its id alone.
fn link(id: &str) -> String {
    let hash = Sha256::digest(id);
    let name: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("st{name}")
}
