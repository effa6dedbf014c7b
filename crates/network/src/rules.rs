//! Writes the packet filter rules of a bridge, from its pods and their ports.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use stanchion_runtime::Protocol;

use super::{
    leases::Subnet,
    netfilter::{Element, Family, Field, HardwareAddress},
};

/// Inputs of the rules.
#[derive(Clone, Debug)]
pub(super) struct State<'a> {
    pub table: &'a str,
    pub bridge: &'a str,
    pub subnet: Subnet,
    pub pods: Vec<Pod>,
    pub ports: Vec<Port>,
    /// `true` if the kernel filters frames of bridges.
    pub has_frames: bool,
}

/// Pod on the bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// The pod's link on the node.
    pub link: String,
    pub address: Ipv4Addr,
    /// `None` for a pod of an earlier version, whose hardware address the kernel chose.
    pub hardware: Option<HardwareAddress>,
}

/// Port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    /// Address of the node; `None` for all.
    pub host: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub number: u16,
    pub target: SocketAddrV4,
}

impl Pod {
    /// Returns the pod's elements of the sets that say which packets may come from a link.
    pub fn elements(&self) -> [Element; 2] {
        let (link, address) = (Field::Link(self.link.clone()), Field::Address(self.address));
        let (set, key) = match self.hardware {
            Some(hardware) => ("pods", vec![link.clone(), Field::Hardware(hardware), address]),
            None => ("earlier", vec![link.clone(), address]),
        };
        [("links", vec![link]), (set, key)].map(|(set, key)| Element {
            family: Family::Bridge,
            set,
            key,
            value: Vec::new(),
        })
    }
}

impl Port {
    /// Returns the port's element of the maps of ports.
    pub fn element(&self) -> Element {
        let mut key = vec![Field::Protocol(self.protocol), Field::Port(self.number)];
        key.splice(0..0, self.host.map(Field::Address));
        let value = vec![Field::Address(*self.target.ip()), Field::Port(self.target.port())];
        let set = if self.host.is_some() { "addressed" } else { "ports" };
        Element { family: Family::Ip, set, key, value }
    }
}

/// Returns the hardware address of a pod, derived from its address, so that a neighbour that remembers the former pod
/// of the address is not misled.
pub(super) fn hardware(address: Ipv4Addr) -> HardwareAddress {
    let [a, b, c, d] = address.octets();
    // Locally administered, with a prefix that no other program uses.
    [0x0a, 0x73, a, b, c, d]
}

/// Returns the batch for `nft` that replaces all rules of the bridge at once.
pub(super) fn batch(state: &State<'_>) -> String {
    let table = state.table;
    let elements: Vec<_> =
        state.pods.iter().flat_map(Pod::elements).chain(state.ports.iter().map(Port::element)).collect();
    let set = |set: &str| {
        let all: Vec<_> = elements.iter().filter(|it| it.set == set).map(ToString::to_string).collect();
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }} ; ", all.join(", ")) }
    };
    let mut batch = String::new();
    for family in ["ip", "bridge"].into_iter().filter(|family| state.has_frames || *family == "ip") {
        // Deleting a table that does not exist is an error, so it is added first.
        write!(batch, "add table {family} {table}\ndelete table {family} {table}\n").expect("a string takes all");
    }
    batch.push_str(&ip_table(state, set));
    if state.has_frames {
        batch.push_str(&bridge_table(table, set));
    }
    batch
}

/// Returns the table for packets: ports of the node, masquerading, and no access to the node's loopback.
fn ip_table(state: &State<'_>, set: impl Fn(&str) -> String) -> String {
    let State { table, bridge, subnet, .. } = state;
    // Without the filter for frames, only this rule drops packets with a false source.
    let others = match state.has_frames {
        true => String::new(),
        false => format!("    iifname \"{bridge}\" ip saddr != {subnet} drop\n"),
    };
    format!(
        "table ip {table} {{
  map ports {{ type inet_proto . inet_service : ipv4_addr . inet_service ; {ports}}}
  map addressed {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; {addressed}}}
  chain loopback {{
    type filter hook prerouting priority -300 ; policy accept ;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
    iifname \"{bridge}\" ip saddr 127.0.0.0/8 drop
{others}  }}
  chain prerouting {{
    type nat hook prerouting priority -100 ; policy accept ;
    dnat ip to ip daddr . meta l4proto . th dport map @addressed
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain output {{
    type nat hook output priority -100 ; policy accept ;
    dnat ip to ip daddr . meta l4proto . th dport map @addressed
    fib daddr type local dnat ip to meta l4proto . th dport map @ports
  }}
  chain postrouting {{
    type nat hook postrouting priority 100 ; policy accept ;
    ip saddr {subnet} ip daddr != {subnet} masquerade
    oifname \"{bridge}\" ip saddr 127.0.0.0/8 masquerade
    oifname \"{bridge}\" ip saddr {subnet} ct status dnat masquerade
  }}
}}
",
        ports = set("ports"),
        addressed = set("addressed"),
    )
}

/// Returns the table for frames: only a pod's own addresses pass its link. IPv6 may not pass: pods have no IPv6 network,
/// and must not announce themselves to each other as routers.
fn bridge_table(table: &str, set: impl Fn(&str) -> String) -> String {
    format!(
        "table bridge {table} {{
  set links {{ type ifname ; {links}}}
  set pods {{ type ifname . ether_addr . ipv4_addr ; {pods}}}
  set earlier {{ type ifname . ipv4_addr ; {earlier}}}
  chain pods {{
    ip daddr 127.0.0.0/8 drop
    iifname . ether saddr . ip saddr @pods accept
    iifname . ether saddr . arp saddr ip @pods accept
    iifname . ip saddr @earlier accept
    iifname . arp saddr ip @earlier accept
    drop
  }}
  chain prerouting {{
    type filter hook prerouting priority -300 ; policy accept ;
    iifname @links jump pods
  }}
}}
",
        links = set("links"),
        pods = set("pods"),
        earlier = set("earlier"),
    )
}
