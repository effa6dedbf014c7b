//! The node: its backends, its resources and its addresses.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use nix::{
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_::InterfaceFlags,
};
use stanchion_pod::Capacity;
use stanchion_untrusted::read_kernel;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{backends::Backend, config::Failover, images::Images, observe::Observer, starts::Starts};

/// Directory with a directory for each size of the node's huge pages.
pub(crate) const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";
/// Directory of the node's network links.
const LINKS: &str = "/sys/class/net";

/// A backend, with its observer and its images.
#[derive(Debug)]
pub(crate) struct BackendSlot<R> {
    pub backend: Backend<R>,
    pub observer: Observer,
    pub images: Arc<Images>,
    /// Sandboxes and containers that pods make there at the same time.
    pub starts: Starts,
}

impl<R> BackendSlot<R> {
    /// Returns the failover of its pods while it is away: the configured one, else the one that the backend reports.
    pub fn failover(&self) -> Option<Failover> {
        let said = || self.observer.latest().health.failover.clone();
        self.backend.failover.or_else(|| Some(Failover { on_return: said()?.on_return, ..Failover::default() }))
    }
}

/// Returns the node's resources for pods, without the disk, which can grow.
pub(crate) fn capacity() -> Capacity {
    Capacity { cpu: cores() * 1000, memory: memory(), ephemeral_storage: 0 }
}

/// Returns the node's memory in bytes, from `/proc/meminfo`; 0 if that cannot be read.
fn memory() -> u64 {
    let meminfo = read_kernel("/proc/meminfo").unwrap_or_default();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Returns this node's sizes of huge pages, bytes (Documentation/admin-guide/mm/hugetlbpage.rst).
pub(crate) fn hugepage_sizes() -> &'static [u64] {
    static SIZES: OnceLock<Vec<u64>> = OnceLock::new();
    SIZES.get_or_init(|| {
        let mut sizes: Vec<_> = hugepages(Path::new(HUGEPAGES)).map(|(size, _)| size).collect();
        sizes.sort_unstable();
        sizes
    })
}

/// Lists the kernel's sizes of huge pages, bytes, each with its directory.
pub(crate) fn hugepages(directory: &Path) -> impl Iterator<Item = (u64, PathBuf)> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let name = entry.file_name();
        let kib = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?;
        Some((kib.checked_mul(1024)?, entry.path()))
    })
}

/// Returns the number of processors that are online (cputopology.rst); at least one.
fn cores() -> u64 {
    let list = read_kernel("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').filter_map(count).sum::<u64>().max(1)
}

/// Interval of reads of the node's addresses. A read costs a few system calls.
const FOLLOW: Duration = Duration::from_secs(2);

/// Follows the node's addresses until `shutdown`: they can appear long after the agent's start, and change.
pub(crate) async fn follow(addresses: watch::Sender<Vec<IpAddr>>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(FOLLOW)).await.is_some() {
        addresses.send_if_modified(|known| {
            let now = self::addresses(known);
            let has_changed = now != *known;
            if has_changed {
                tracing::info!(from = ?known, to = ?now, "the node's addresses have changed");
                *known = now;
            }
            has_changed
        });
    }
}

/// Returns the node's addresses, one of each family: the source address of the route to the internet. Without such a
/// route, it is the known one if the node still has it, or one of a link.
pub(crate) fn addresses(known: &[IpAddr]) -> Vec<IpAddr> {
    // Connecting a UDP socket sends nothing. It makes the kernel choose the source address of the route.
    let route = |any: &str, target: &str| {
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        socket.local_addr()
    };
    let is_here = |address: &&IpAddr| UdpSocket::bind((**address, 0)).is_ok();
    let tried = [(true, route("0.0.0.0:0", "192.0.2.1:9")), (false, route("[::]:0", "[2001:db8::1]:9"))];
    let found = tried.into_iter().filter_map(|(is_v4, found)| match found {
        Ok(found) => Some(found.ip()),
        Err(_) => {
            let known = known.iter().find(|known| known.is_ipv4() == is_v4).filter(is_here).copied();
            known.or_else(|| of_a_link(is_v4))
        }
    });
    found.collect()
}

/// Returns an address of a link that is up, preferably a device's. A bridge between containers has none for the node.
fn of_a_link(is_v4: bool) -> Option<IpAddr> {
    let up = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let links = getifaddrs().ok()?.filter(|link| {
        link.flags.contains(up)
            && !link.flags.contains(InterfaceFlags::IFF_LOOPBACK)
            && !is_of_containers(&link.interface_name)
    });
    let address = |link: InterfaceAddress| {
        let address = link.address?;
        let address = match is_v4 {
            true => Some(address.as_sockaddr_in()?.ip()).filter(|it| !it.is_link_local()).map(IpAddr::V4),
            false => Some(address.as_sockaddr_in6()?.ip()).filter(|it| !it.is_unicast_link_local()).map(IpAddr::V6),
        };
        Some((!is_device(&link.interface_name), address?))
    };
    links.filter_map(address).min_by_key(|(is_virtual, _)| *is_virtual).map(|(_, address)| address)
}

/// Returns whether a link is a bridge without a device of the node in it.
fn is_of_containers(link: &str) -> bool {
    fs::read_dir(Path::new(LINKS).join(link).join("brif"))
        .is_ok_and(|mut ports| !ports.any(|port| port.is_ok_and(|port| is_device(port.file_name()))))
}

fn is_device(link: impl AsRef<Path>) -> bool {
    Path::new(LINKS).join(link).join("device").exists()
}

/// Address at which hooks and probes reach a container.
#[derive(Clone, Debug)]
pub(crate) enum ContactAddress {
    /// Address of a pod with its own network. It stays the same.
    Pod(IpAddr),
    /// Address of the node, for a pod on the node's network. It can change.
    Node(watch::Receiver<Vec<IpAddr>>),
}

impl ContactAddress {
    /// Returns the present address.
    pub fn current(&self) -> IpAddr {
        match self {
            Self::Pod(address) => *address,
            Self::Node(addresses) => addresses.borrow().first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::addresses;

    #[test]
    fn a_node_on_a_network_of_its_own_has_an_address() {
        // Only this thread enters the namespace, which ends with it.
        let found = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests run as root");
            assert_eq!(addresses(&[]), Vec::<std::net::IpAddr>::new());
            for line in [
                "link add lan type veth peer name other",
                "address add 192.0.2.5/24 dev lan",
                "address add fd00::5/64 dev lan nodad",
                "link set lan up",
                "link set other up",
            ] {
                assert!(Command::new("ip").args(line.split(' ')).status().expect("iproute2").success(), "{line}");
            }
            addresses(&[])
        });
        let expected: [std::net::IpAddr; 2] = ["192.0.2.5", "fd00::5"].map(|it| it.parse().expect("an address"));
        assert_eq!(found.join().expect("the thread ends"), expected);
    }

    #[test]
    fn an_address_that_the_node_has_no_longer_is_forgotten() {
        let [here, gone] = ["127.0.0.9", "198.51.100.7"].map(|it| it.parse().expect("an address"));
        assert!(!addresses(&[gone]).contains(&gone));
        // A machine with a route to the internet has that address instead.
        assert_ne!(addresses(&[here]).iter().filter(|it| it.is_ipv4()).count(), 0);
    }
}
