//! Connects pods without plugins: by a bridge on the node, an address for each pod, and ports of the node that lead to
//! pods.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use stanchion_runtime::{Error, ErrorKind, PortMapping, Result, clock};
use stanchion_untrusted::{Links, open};
use tokio::time::Instant;

use super::{
    NetworkConfig,
    filter::{self, Filter},
    forward::Forward,
    leases::{self, Leases, Subnet},
    links::links,
    netfilter::{self, Change},
    parameters,
    rules::{Port, hardware},
};
use crate::namespaces;

/// Time beyond which a search for obstacles to pods' traffic is slow; the next search waits `PAUSE_FACTOR` times as long.
const SLOW_SEARCH: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 50;

/// Bridge of one agent.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    bridge: Arc<str>,
    subnet: Subnet,
    leases: Leases,
    filter: Filter,
    forward: Forward,
    state: Arc<Mutex<BridgeState>>,
}

/// State of the bridge, as this process has made or found it.
#[derive(Debug, Default)]
struct BridgeState {
    /// `true` once bridge and links were set up.
    is_ready: bool,
    /// `true` if the node had a route to pods over the bridge then.
    has_route: bool,
    /// Number of changes to the packet filter's rules at the last search for obstacles.
    changes: Option<u64>,
    /// Generation of the rules at the last request for the health without a pod.
    asked: Option<u32>,
    /// Obstacles that were found last.
    obstacles: Vec<String>,
    /// Time of the next search for obstacles, if the last one was slow.
    search_again: Option<Instant>,
    /// Reason why the network is not set up; `None` if it is.
    failure: Option<String>,
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
        let bridge = config.bridge.as_str().into();
        let (filter, forward) = (Filter::new(&bridge, subnet, leases.clone()), Forward::new(&bridge, &subnet));
        Ok(Self { bridge, subnet, leases, filter, forward, state: Arc::default() })
    }

    /// Connects a network namespace. No lease of an earlier try may be left.
    pub fn attach(&self, id: &str, namespace: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>> {
        let failed = |tried: &str| {
            let tried = format!("{tried} for sandbox {id}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        self.prepare(false)?;
        let address = self.leases.lease(id, &self.subnet).map_err(failed("leasing an address"))?;
        let connected = self.connect(id, address, namespace).map_err(failed("connecting the network"));
        let connected = connected.and_then(|()| self.admit(id, address, ports));
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
        let mut elements = Vec::new();
        for (address, _, is_determined) in self.leases.leased().map_err(failed)?.into_iter().filter(|it| it.1 == id) {
            let pod = filter::pod(id, address);
            elements.extend(is_determined.then(|| pod.elements()).into_iter().flatten());
        }
        for (name, _, target) in self.leases.claimed().map_err(failed)?.into_iter().filter(|it| it.1 == id) {
            if let (Some((host, protocol, number)), Some(target)) = (leases::parse_port_name(&name), target) {
                let target = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, target);
                elements.push(netfilter::Element {
                    value: Vec::new(),
                    ..Port { host, protocol, number, target }.element()
                });
            }
        }
        // The leases go first: rules that are rebuilt meanwhile have to leave these out.
        if self.leases.release(id).map_err(failed)?
            && let Err(error) = self.filter.change(Change::Remove, &elements)
        {
            tracing::warn!(sandbox = id, %error, "rules of a sandbox that is gone stay until the next look");
        }
        Ok(())
    }

    /// Removes a sandbox's link, in case the kernel does not remove it with the namespace at once.
    pub fn unlink(&self, id: &str) {
        let link = link(id);
        if let Err(error) = links(async |links| links.remove(&link).await) {
            tracing::debug!(sandbox = id, link, %error, "a link is left to go with its namespace");
        }
    }

    /// Returns every sandbox that has a lease.
    pub fn holders(&self) -> io::Result<HashSet<String>> {
        self.leases.holders()
    }

    fn connect(&self, id: &str, address: Ipv4Addr, namespace: &Path) -> io::Result<()> {
        let (link, pod) = (link(id), open(namespace, Links::Follow)?);
        let hardware = hardware(address);
        self.leases.write_hardware(address)?;
        links(async |links| links.pair(&link, &self.bridge, "eth0", hardware, pod.as_fd()).await)?;
        let (length, gateway) = (self.subnet.length, self.subnet.gateway());
        namespaces::inside(namespace, || {
            links(async |links| {
                links.bring_up("lo").await?;
                links.address("eth0", address, length, gateway).await
            })
        })
    }

    /// Adds the pod to the rules, and leads ports of the node to it.
    fn admit(&self, id: &str, address: Ipv4Addr, ports: &[PortMapping]) -> Result<()> {
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Other, format!("making the rules of sandbox {id}")).caused_by(&error)
        };
        let mut elements = filter::pod(id, address).elements().to_vec();
        for port in ports {
            let host = match port.host_ip {
                Some(IpAddr::V6(ip)) => {
                    let message = format!("hostIP {ip}: pods have no IPv6 network yet; use an IPv4 address");
                    return Err(Error::new(ErrorKind::Unsupported, message));
                }
                Some(IpAddr::V4(ip)) => Some(ip),
                None => None,
            };
            self.leases.claim(id, port)?;
            self.leases.write_target(port).map_err(failed)?;
            let target = SocketAddrV4::new(address, port.container_port);
            elements.push(Port { host, protocol: port.protocol, number: port.host_port, target }.element());
        }
        // The rules that keep pods from the node's loopback have existed since the bridge was prepared.
        if !ports.is_empty() {
            self.set_localnet(true).map_err(failed)?;
        }
        self.filter.change(Change::Add, &elements).map_err(failed)
    }

    /// Repairs the network, or records why that failed. Costs a few reads if nothing has changed.
    pub fn repair(&self, at_everything: bool) {
        let repaired = match self.is_used() {
            Ok(true) => self.prepare(at_everything).map_err(|error| error.chain()),
            Ok(false) => {
                self.abandon();
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.state();
        let failure = repaired.err();
        if let Some(failure) = failure.as_ref().filter(|_| state.failure != failure) {
            tracing::warn!(bridge = &*self.bridge, error = failure, "the pods' network is not as it is to be");
        }
        state.failure = failure;
    }

    /// Returns the reason why pods have no network, if there is one, and the obstacles to their traffic.
    pub fn diagnose(&self) -> (Option<String>, Vec<String>) {
        let mut state = self.state();
        if !state.is_ready {
            // Without a pod nothing is repaired, and little is read.
            let generation = netfilter::generation().ok();
            if state.asked != generation || generation.is_none() {
                state.obstacles = self.forward.obstacles(false).unwrap_or_default();
                state.asked = generation;
            }
        }
        let mut obstacles = state.obstacles.clone();
        obstacles.extend(self.filter.gap());
        (state.failure.clone(), obstacles)
    }

    /// Returns whether pods are on the bridge, or the bridge is left from some. Before that, a bridge of its name
    /// belongs to another program, perhaps to a CNI plugin.
    fn is_used(&self) -> io::Result<bool> {
        Ok(!self.leases.is_empty()? || (self.state().is_ready && self.exists()))
    }

    /// Removes the rules for a bridge that is gone from iptables: they are in other programs' tables, and stay
    /// otherwise.
    fn abandon(&self) {
        let mut state = self.state();
        if state.is_ready {
            self.forward.withdraw();
            *state = BridgeState::default();
        }
    }

    fn exists(&self) -> bool {
        // This path is of the calling thread's network namespace; `/sys` need not be.
        Path::new("/proc/sys/net/ipv4/conf").join(&*self.bridge).exists()
    }

    /// Returns whether the node reaches pods from the bridge's address, which it does not without that address, or
    /// while the bridge is down.
    fn has_route(&self) -> bool {
        // A UDP socket's connect sends nothing, but makes the kernel choose the source address of a route.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        let source = socket.and_then(|it| it.connect((self.subnet.first(), 9)).and_then(|()| it.local_addr()));
        source.is_ok_and(|source| source.ip() == self.subnet.gateway())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BridgeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bridge, the links' settings and the rules, or finds them made.
    fn prepare(&self, at_everything: bool) -> Result<()> {
        let mut state = self.state();
        let bridge = &self.bridge;
        let failed = |tried: &'static str| {
            let tried = format!("{tried} {bridge}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        // The rules come first, so that what they forbid is never possible.
        let changes = self.filter.ensure().map_err(failed("making the rules of bridge"))?;
        if !state.is_ready || !self.exists() || (state.has_route && !self.has_route()) {
            state.is_ready = false;
            self.set_up().map_err(failed("setting up bridge"))?;
            state.has_route = self.has_route();
        }
        let forwarding = parameters::set(&[("ipv4/ip_forward", "1")]);
        let changed = forwarding.map_err(failed("allowing traffic over bridge"))?;
        if state.is_ready && !changed.is_empty() {
            tracing::warn!(bridge = &**bridge, "somebody turned off net.ipv4.ip_forward: it is on again");
        }
        let localnet = self.leases.has_ports().and_then(|has_ports| {
            self.set_localnet(has_ports)?;
            // A pod may have claimed a port meanwhile.
            match !has_ports && self.leases.has_ports()? {
                true => self.set_localnet(true),
                false => Ok(()),
            }
        });
        localnet.map_err(failed("allowing traffic over bridge"))?;
        state.is_ready = true;
        // Legacy iptables does not report changes.
        let is_due = state.search_again.is_none_or(|at| at <= clock::instant());
        if is_due && (state.changes != Some(changes) || (at_everything && Forward::has_legacy())) {
            let begun = clock::instant();
            let found = self.forward.obstacles(true);
            // The search can be slow: other programs' tables can have sets of a hundred thousand addresses.
            state.search_again = Some(begun.elapsed())
                .filter(|took| *took > SLOW_SEARCH)
                .map(|took| clock::instant() + took * PAUSE_FACTOR);
            match found {
                Ok(obstacles) => {
                    for obstacle in obstacles.iter().filter(|it| !state.obstacles.contains(it)) {
                        tracing::warn!(bridge = &**bridge, obstacle, "something is in the way of pods");
                    }
                    state.obstacles = obstacles;
                }
                Err(error) => tracing::warn!(bridge = &**bridge, %error, "nobody can tell what is in the way of pods"),
            }
            state.changes = Some(changes);
        }
        Ok(())
    }

    /// Allows or forbids packets between the node's loopback addresses and the bridge. Only ports of the node that are
    /// called through a loopback address need them.
    fn set_localnet(&self, passes: bool) -> io::Result<()> {
        let name = format!("ipv4/conf/{}/route_localnet", self.bridge);
        parameters::set(&[(&name, if passes { "1" } else { "0" })]).map(drop)
    }

    /// Makes the bridge, and sets up the links of existing pods: those of an earlier version, or of a bridge that was
    /// removed.
    fn set_up(&self) -> io::Result<()> {
        let (gateway, length) = (self.subnet.gateway(), self.subnet.length);
        let leased = self.leases.leased()?;
        links(async |links| {
            links.bridge(&self.bridge, gateway, length).await?;
            for link in leased.iter().map(|(_, owner, _)| link(owner)) {
                if links.find(&link).await?.is_some()
                    && let Err(error) = links.port(&link, &self.bridge).await
                {
                    // A pod that ends just now must not keep the others waiting.
                    tracing::warn!(link, %error, "a pod's link is not set up");
                }
            }
            Ok(())
        })
    }
}

/// Returns the name of a sandbox's link on the node: at most 15 characters, from its id alone.
pub(super) fn link(id: &str) -> String {
    format!("st{}", hex::encode(&Sha256::digest(id)[..6]))
}
