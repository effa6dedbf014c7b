//! Leases of addresses and ports: files that outlive the agent and end with a reboot.
//!
//! ```text
//! <run_dir>/ipam/<bridge>/addresses/<address>   holds the sandbox's id
//! <run_dir>/ipam/<bridge>/hardware/<address>    exists if the pod's hardware address is derived from its address
//! <run_dir>/ipam/<bridge>/ports/<key>           holds the sandbox's id
//! <run_dir>/ipam/<bridge>/targets/<key>         holds the pod's port
//! <run_dir>/cni/ports/<key>                     the same, with CNI plugins
//! ```

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use stanchion_runtime::{Error, ErrorKind, PortMapping, Protocol, Result};
use stanchion_untrusted::{Links, make_directory, read_text};

use crate::limits;

/// Directories of the files that belong to leases and claims.
const TARGETS: &str = "targets";
const HARDWARE: &str = "hardware";

/// Subnet of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    base: u32,
    pub length: u8,
}

impl Subnet {
    /// Parses a subnet like `10.213.0.0/16`; it has at least four addresses.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let (base, length): (Ipv4Addr, u8) = (base.parse().ok()?, length.parse().ok()?);
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).filter(|_| (8..=30).contains(&length))?;
        Some(Self { base: u32::from(base) & mask, length })
    }

    /// Returns the bridge's address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Returns the first address that a pod can have.
    pub fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2)
    }

    /// Returns the number of addresses that pods can have.
    fn size(&self) -> u32 {
        (1 << (32 - self.length)) - 3
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.length)
    }
}

/// Leases of one bridge, or of the CNI plugins.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    directory: PathBuf,
}

impl Leases {
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Leases the next free address after the last leased one, so that a freed address is not reused at once.
    pub fn lease(&self, id: &str, subnet: &Subnet) -> io::Result<Ipv4Addr> {
        make_directory(self.addresses())?;
        let last = read_text(self.directory.join("last"), Links::Refuse, limits::OWN_FILE)
            .ok()
            .and_then(|last| last.trim().parse().ok());
        let first = last.map_or(0, |last: u32| last.wrapping_add(1));
        for step in 0..subnet.size() {
            let number = (first.wrapping_add(step)) % subnet.size();
            let address = Ipv4Addr::from(subnet.base + 2 + number);
            if claim(&self.addresses().join(address.to_string()), id)?.is_none() {
                // Only a hint: without it an address is reused sooner.
                fs::write(self.directory.join("last"), number.to_string())?;
                return Ok(address);
            }
        }
        Err(io::Error::other(format!("all {} addresses of {subnet} are in use", subnet.size())))
    }

    /// Claims a port for a sandbox.
    pub fn claim(&self, id: &str, port: &PortMapping) -> Result<()> {
        let (map, key) = map_key(port);
        let shown = format!("port {}/{} of the node", port.host_port, protocol_name(port.protocol));
        match self.claim_port(id, &format!("{map} {{ {key} }}")) {
            Ok(None) => Ok(()),
            Ok(Some(owner)) => Err(Error::new(ErrorKind::Conflict, format!("{shown} is in use by sandbox {owner}"))),
            Err(error) => {
                Err(Error::new(ErrorKind::Other, format!("claiming {shown} for sandbox {id}")).caused_by(&error))
            }
        }
    }

    /// Claims a port for a sandbox. Returns the owner if another sandbox has it.
    fn claim_port(&self, id: &str, key: &str) -> io::Result<Option<String>> {
        make_directory(self.ports_dir())?;
        Ok(claim(&self.ports_dir().join(key.replace('/', "_")), id)?.filter(|owner| owner != id))
    }

    /// Records the pod's port that a claimed port leads to.
    pub fn write_target(&self, port: &PortMapping) -> io::Result<()> {
        let (map, key) = map_key(port);
        self.write_target_of(&format!("{map} {{ {key} }}"), port.container_port)
    }

    /// Records the pod's port by the name of the claimed port.
    pub fn write_target_of(&self, name: &str, target: u16) -> io::Result<()> {
        write_file(&self.directory.join(TARGETS), &name.replace('/', "_"), &target.to_string())
    }

    /// Records that a pod's hardware address is derived from its address.
    pub fn write_hardware(&self, address: Ipv4Addr) -> io::Result<()> {
        write_file(&self.directory.join(HARDWARE), &address.to_string(), "")
    }

    /// Returns every leased address with its sandbox, and whether the pod's hardware address is derived from it.
    pub fn leased(&self) -> io::Result<Vec<(Ipv4Addr, String, bool)>> {
        let held = entries(&self.addresses())?.into_iter();
        let leased = held.filter_map(|(name, owner)| Some((name.parse::<Ipv4Addr>().ok()?, owner)));
        let hardware = self.directory.join(HARDWARE);
        Ok(leased.map(|(address, owner)| (address, owner, hardware.join(address.to_string()).exists())).collect())
    }

    /// Returns every claimed port by name, with its sandbox, and the pod's port if that is recorded.
    pub fn claimed(&self) -> io::Result<Vec<(String, String, Option<u16>)>> {
        let targets: HashMap<_, _> = entries(&self.directory.join(TARGETS))?.into_iter().collect();
        let target = |name: &String| targets.get(name).and_then(|it| it.trim().parse().ok());
        let with_target = |(name, owner)| {
            let target = target(&name);
            (name, owner, target)
        };
        Ok(entries(&self.ports_dir())?.into_iter().map(with_target).collect())
    }

    /// Returns whether no address is leased.
    pub fn is_empty(&self) -> io::Result<bool> {
        is_empty_or_missing(&self.addresses())
    }

    /// Returns whether a port is claimed.
    pub fn has_ports(&self) -> io::Result<bool> {
        is_empty_or_missing(&self.ports_dir()).map(|is_empty_or_missing| !is_empty_or_missing)
    }

    /// Locks the leases and the rules made from them: one process at a time changes them.
    pub fn lock(&self) -> io::Result<File> {
        make_directory(&self.directory)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.directory.join("lock"))?;
        file.lock()?;
        Ok(file)
    }

    /// Frees all leases and claims of a sandbox. Returns whether it had any.
    pub fn release(&self, id: &str) -> io::Result<bool> {
        let mut had = false;
        for (directory, files) in [(self.ports_dir(), TARGETS), (self.addresses(), HARDWARE)] {
            for (name, _) in entries(&directory)?.into_iter().filter(|(_, owner)| owner == id) {
                match fs::remove_file(self.directory.join(files).join(&name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                fs::remove_file(directory.join(name))?;
                had = true;
            }
        }
        Ok(had)
    }

    /// Returns every sandbox that has an address or a port.
    pub fn holders(&self) -> io::Result<HashSet<String>> {
        let (mut all, ports) = (entries(&self.addresses())?, entries(&self.ports_dir())?);
        all.extend(ports);
        Ok(all.into_iter().map(|(_, owner)| owner).collect())
    }

    fn addresses(&self) -> PathBuf {
        self.directory.join("addresses")
    }

    fn ports_dir(&self) -> PathBuf {
        self.directory.join("ports")
    }
}

/// Returns the location of a port in the packet filter's table: the map, and the key in it.
pub(super) fn map_key(port: &PortMapping) -> (&'static str, String) {
    let (protocol, number) = (protocol_name(port.protocol), port.host_port);
    match port.host_ip {
        None => ("ports", format!("{protocol} . {number}")),
        Some(address) => ("addressed", format!("{address} . {protocol} . {number}")),
    }
}

/// Parses the name of a claimed port: address of the node, protocol, number.
pub(super) fn parse_port_name(name: &str) -> Option<(Option<Ipv4Addr>, Protocol, u16)> {
    let (_, key) = name.strip_suffix(" }")?.split_once(" { ")?;
    let parts: Vec<_> = key.split(" . ").collect();
    let (host, protocol, number) = match parts[..] {
        [protocol, number] => (None, protocol, number),
        [host, protocol, number] => (Some(host.parse().ok()?), protocol, number),
        _ => return None,
    };
    let protocol =
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|it| protocol_name(*it) == protocol)?;
    Some((host, protocol, number.parse().ok()?))
}

pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Writes a file that belongs to a lease or a claim.
fn write_file(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    make_directory(directory)?;
    fs::write(directory.join(name), text)
}

/// Creates a file with its owner's id. Returns the present owner if the file exists.
fn claim(path: &Path, id: &str) -> io::Result<Option<String>> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(id.as_bytes()).map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_text(path, Links::Refuse, limits::OWN_FILE).map(Some)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether a directory is empty or missing.
fn is_empty_or_missing(directory: &Path) -> io::Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().transpose().map(|entry| entry.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn entries(directory: &Path) -> io::Result<Vec<(String, String)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut held = Vec::new();
    for entry in entries {
        let entry = entry?;
        match read_text(entry.path(), Links::Refuse, limits::OWN_FILE) {
            Ok(owner) => held.push((entry.file_name().to_string_lossy().into_owned(), owner)),
            // Freed while the list was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use stanchion_runtime::Protocol;

    use super::{Leases, Subnet, parse_port_name};

    #[test]
    fn addresses_are_leased_once_and_not_reused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (leases, subnet) =
            (Leases::at(directory.path().to_owned()), Subnet::parse("10.1.2.0/29").expect("a subnet"));
        assert_eq!(subnet.gateway().to_string(), "10.1.2.1");
        let leased: Vec<_> =
            (0..5).map(|id| leases.lease(&id.to_string(), &subnet).expect("a free address").to_string()).collect();
        assert_eq!(leased, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        assert!(leases.lease("6", &subnet).is_err(), "full");
        leases.release("1").expect("freed");
        leases.release("3").expect("freed");
        assert_eq!(leases.lease("7", &subnet).expect("a free address").to_string(), "10.1.2.3");
        assert_eq!(leases.lease("8", &subnet).expect("a free address").to_string(), "10.1.2.5");
    }

    #[test]
    fn a_claimed_port_is_known_by_its_name() {
        assert_eq!(parse_port_name("ports { udp . 53 }"), Some((None, Protocol::Udp, 53)));
        let host = "192.0.2.1".parse().expect("an address");
        assert_eq!(parse_port_name("addressed { 192.0.2.1 . tcp . 80 }"), Some((Some(host), Protocol::Tcp, 80)));
        for other in ["", "ports", "ports { tcp }", "ports { icmp . 1 }", "ports { tcp . 65536 }"] {
            assert_eq!(parse_port_name(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_port_has_one_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let leases = Leases::at(directory.path().to_owned());
        assert_eq!(leases.claim_port("a", "ports { tcp . 80 }").expect("claimed"), None);
        assert_eq!(leases.claim_port("b", "ports { tcp . 80 }").expect("asked").as_deref(), Some("a"));
        leases.write_target_of("ports { tcp . 80 }", 8080).expect("written");
        let claimed = leases.claimed().expect("listed");
        assert_eq!(claimed, [("ports { tcp . 80 }".to_owned(), "a".to_owned(), Some(8080))]);
        assert!(leases.release("a").expect("freed"));
        assert!(!leases.release("a").expect("nothing is left"));
        leases.claim_port("b", "ports { tcp . 80 }").expect("claimed");
        assert_eq!(leases.claimed().expect("listed")[0].2, None, "the note went with the claim");
        leases.release("b").expect("freed");
        assert_eq!(leases.claim_port("b", "ports { tcp . 80 }").expect("claimed"), None);
    }
}
