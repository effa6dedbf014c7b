//! Obstacles on the node for pods on Stanchion's own bridge.

use std::{net::Ipv4Addr, path::Path};

use stanchion_runtime::Health;
use stanchion_untrusted::{Limit, Links};

use super::{
    Verdict::{self, Bad, Doubtful, Fine},
    has_own_bridge,
};
use crate::{config::BackendSettings, limits::NODE_FILE};

/// Rules that nftables loads at its start, by distribution.
const RULE_FILES: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];

/// A network: address and prefix length.
type Net = (Ipv4Addr, u32);

/// A route of the node.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    link: String,
    to: Net,
}

/// Checks the node's network for pods on Stanchion's own bridges.
pub(super) fn checks(backends: &[BackendSettings]) -> Vec<Verdict> {
    let mut found = Vec::new();
    for backend in backends.iter().filter(|backend| has_own_bridge(backend)) {
        let setting = |key: &str, default: &str| {
            let value = backend.table.pointer(&format!("/network/{key}")).and_then(|it| it.as_str());
            value.unwrap_or(default).to_owned()
        };
        let (bridge, subnet) = (setting("bridge", "stanchion0"), setting("subnet", "10.213.0.0/16"));
        let routes = routes(&read("/proc/net/route", NODE_FILE));
        found.extend(overlap(&backend.name, &bridge, &subnet, &routes));
        found.extend(astray(&routes, reverse_path));
        found.extend(firewalls(&bridge));
    }
    if backends.iter().any(has_own_bridge) {
        found.push(forwarding(read("/proc/sys/net/ipv4/ip_forward", NODE_FILE).trim()));
    }
    found
}

/// Returns the obstacles in a backend's health, each with its remedy.
pub(super) fn obstacles(health: &Health) -> impl Iterator<Item = (&str, &str)> {
    let messages = health.message.split(" | ").filter(|_| health.state.starts_with("network-"));
    messages.map(|message| message.split_once("; to mend it: ").unwrap_or((message, "mend what it names")))
}

fn forwarding(value: &str) -> Verdict {
    match value {
        "0" => Doubtful(
            "net.ipv4.ip_forward is 0: pods reach this node only, until the agent connects one or looks again"
                .to_owned(),
            "sysctl -w net.ipv4.ip_forward=1, and have no file in /etc/sysctl.d set it to 0".to_owned(),
        ),
        _ => Fine("the node forwards packets".to_owned()),
    }
}

fn overlap(backend: &str, bridge: &str, subnet: &str, routes: &[Route]) -> Vec<Verdict> {
    let Some(pods) = net(subnet) else { return Vec::new() };
    let overlapping = routes.iter().filter(|route| route.link != bridge && overlaps(route.to, pods));
    let verdict = |Route { link, to: (address, length) }: &Route| {
        Bad(
            format!("pods' subnet {subnet} overlaps the route to {address}/{length} over {link}: packets go astray"),
            format!("set `subnet` in [backend.{backend}.network] to a network that nobody uses"),
        )
    };
    overlapping.map(verdict).collect()
}

/// Checks for several default routes with a strict reverse-path filter, which drops packets that return by the other
/// route.
fn astray(routes: &[Route], reverse_path: impl Fn(&str) -> bool) -> Vec<Verdict> {
    let ways: Vec<_> = routes.iter().filter(|route| route.to.1 == 0).map(|route| route.link.as_str()).collect();
    if ways.iter().all(|way| Some(way) == ways.first()) {
        return Vec::new();
    }
    let strict = ways.into_iter().filter(|link| reverse_path(link));
    let verdict = |link| {
        Doubtful(
            format!(
                "rp_filter of {link} is strict and there are several default routes: what comes back there is dropped"
            ),
            format!("sysctl -w net.ipv4.conf.{link}.rp_filter=2"),
        )
    };
    strict.map(verdict).collect()
}

/// Returns whether a link drops packets that it would not send answers to (ip-sysctl.rst: the larger value of `all` and
/// the link holds).
fn reverse_path(link: &str) -> bool {
    let of = |link: &str| {
        read(&format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), NODE_FILE).trim().parse().unwrap_or(0_u8)
    };
    of("all").max(of(link)) == 1
}

fn firewalls(bridge: &str) -> Vec<Verdict> {
    let mut found = Vec::new();
    for file in RULE_FILES.into_iter().filter(|file| flushes(&read(file, NODE_FILE))) {
        found.push(Doubtful(
            format!(
                "{file} flushes all rules when nftables starts; the agent puts those of pods back, and Docker does not"
            ),
            "have it delete its own tables only, in place of `flush ruleset`".to_owned(),
        ));
    }
    if Path::new("/run/firewalld").exists() || Path::new("/run/firewalld.pid").exists() {
        found.push(Doubtful(
            "firewalld runs, and drops what it does not know".to_owned(),
            format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"),
        ));
    }
    if read("/etc/ufw/ufw.conf", NODE_FILE).lines().any(|line| line.trim() == "ENABLED=yes") {
        found.push(Doubtful(
            "ufw is on: pods reach this node only by what it allows".to_owned(),
            format!("ufw allow in on {bridge}"),
        ));
    }
    found
}

fn flushes(rules: &str) -> bool {
    rules
        .lines()
        .any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches(';') == "flush ruleset")
}

/// Parses `/proc/net/route`: hexadecimal numbers in network byte order, printed as the machine's integers.
fn routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
        let (to, mask) = (number(1)?, number(7)?);
        Some(Route { link: (*fields.first()?).to_owned(), to: (to.into(), mask.count_ones()) })
    };
    text.lines().skip(1).filter_map(route).collect()
}

fn net(text: &str) -> Option<Net> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok().filter(|length| *length <= 32)?))
}

/// Returns whether two networks have addresses in common. The default route never counts: every other route takes
/// precedence.
fn overlaps(one: Net, other: Net) -> bool {
    let length = one.1.min(other.1);
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    length != 0 && u32::from(one.0) & mask == u32::from(other.0) & mask
}

/// Reads a file of the node; empty if it cannot be read.
fn read(path: &str, limit: Limit) -> String {
    stanchion_untrusted::read_start(path, Links::Follow, limit)
        .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
wg0\t0000D50A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    /// Parses routes as a little-endian kernel prints them; none on other machines.
    fn printed(text: &str) -> Vec<Route> {
        if cfg!(target_endian = "little") { routes(text) } else { Vec::new() }
    }

    #[test]
    fn a_route_into_the_pods_subnet_is_named() {
        let routes = printed(ROUTES);
        let said = |bridge: &str, subnet: &str| {
            let found = overlap("containerd", bridge, subnet, &routes);
            found
                .into_iter()
                .map(|verdict| if let Bad(what, _) = verdict { what } else { String::new() })
                .collect::<Vec<_>>()
        };
        let [what] = &said("stanchion0", "10.213.0.0/16")[..] else { panic!("one route overlaps") };
        assert!(what.contains("10.213.0.0/24 over wg0"), "{what}");
        assert!(said("wg0", "10.213.0.0/16").is_empty(), "the bridge's own");
        assert!(said("stanchion0", "10.214.0.0/16").is_empty(), "the default route is in nobody's way");
        assert_eq!(said("stanchion0", "10.213.0.128/25").len(), 1);
    }

    #[test]
    fn a_strict_filter_matters_where_there_are_two_ways() {
        let mut routes = printed(ROUTES);
        assert!(astray(&routes, |_| true).is_empty());
        routes.push(Route { link: "eth1".to_owned(), to: (Ipv4Addr::UNSPECIFIED, 0) });
        let [Doubtful(what, line)] = &astray(&routes, |link| link == "eth1")[..] else { panic!("one link is strict") };
        assert!(what.contains("rp_filter of eth1"), "{what}");
        assert_eq!(line, "sysctl -w net.ipv4.conf.eth1.rp_filter=2");
    }

    #[test]
    fn what_is_off_or_flushes_is_said() {
        assert!(matches!(forwarding("0"), Doubtful(_, line) if line.contains("net.ipv4.ip_forward=1")));
        assert!(matches!(forwarding("1"), Fine(_)));
        assert!(flushes("#!/usr/sbin/nft -f\n\nflush  ruleset;\ntable inet f {}\n"));
        assert!(!flushes("# flush ruleset\nflush table inet f\n"));
    }

    #[test]
    fn what_a_backend_says_of_its_network_comes_with_the_line() {
        let health = |state: &str| Health {
            state: state.to_owned(),
            message: "chain f drops; to mend it: nft x | no network".to_owned(),
            failover: None,
        };
        let found = health("network-obstructed");
        let found: Vec<_> = obstacles(&found).collect();
        assert_eq!(found, [("chain f drops", "nft x"), ("no network", "mend what it names")]);
        assert_eq!(obstacles(&health("k3s-up")).count(), 0);
    }
}
