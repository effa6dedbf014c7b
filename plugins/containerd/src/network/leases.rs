//! Who has which address and which port: files that outlive the agent and end with a reboot.
//!
//! ```text
//! <run_dir>/ipam/<bridge>/addresses/<address>   holds the sandbox's id
//! <run_dir>/ipam/<bridge>/ports/<key>           holds the sandbox's id
//! <run_dir>/cni/ports/<key>                     the same, with CNI plugins
//! ```

use std::{
    collections::HashSet,
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use stanchion_sdk::{
    layers::make_directory,
    runtime::{Error, ErrorKind, PortMapping, Protocol, Result},
};
use stanchion_untrusted::{Links, read_text};

use crate::limits;

/// Where addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    base: u32,
    pub length: u8,
}

impl Subnet {
    /// `10.213.0.0/16`; at least four addresses.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, length) = text.split_once('/')?;
        let (base, length): (Ipv4Addr, u8) = (base.parse().ok()?, length.parse().ok()?);
        let mask = u32::MAX.checked_shl(32_u32.checked_sub(length.into())?).filter(|_| (8..=30).contains(&length))?;
        Some(Self { base: u32::from(base) & mask, length })
    }

    /// The bridge's address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// How many addresses pods can have.
    fn room(&self) -> u32 {
        (1 << (32 - self.length)) - 3
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.length)
    }
}

/// The leases of one bridge, or of the plugins.
#[derive(Clone, Debug)]
pub(super) struct Leases {
    directory: PathBuf,
}

impl Leases {
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Leases an address, not the one that was freed last.
    pub fn take(&self, id: &str, subnet: &Subnet) -> io::Result<Ipv4Addr> {
        make_directory(self.addresses())?;
        let last = read_text(self.directory.join("last"), Links::Refuse, limits::OWN_FILE)
            .ok()
            .and_then(|last| last.trim().parse().ok());
        let first = last.map_or(0, |last: u32| last.wrapping_add(1));
        for step in 0..subnet.room() {
            let number = (first.wrapping_add(step)) % subnet.room();
            let address = Ipv4Addr::from(subnet.base + 2 + number);
            if claim(&self.addresses().join(address.to_string()), id)?.is_none() {
                // Only a hint: losing it costs that an address is used again soon.
                fs::write(self.directory.join("last"), number.to_string())?;
                return Ok(address);
            }
        }
        Err(io::Error::other(format!("all {} addresses of {subnet} are in use", subnet.room())))
    }

    /// Claims a port for a sandbox.
    pub fn claim(&self, id: &str, port: &PortMapping) -> Result<()> {
        let (map, key) = place(port);
        let shown = format!("port {}/{} of the node", port.host_port, protocol(port));
        match self.claim_port(id, &format!("{map} {{ {key} }}")) {
            Ok(None) => Ok(()),
            Ok(Some(owner)) => Err(Error::new(ErrorKind::Conflict, format!("{shown} is in use by sandbox {owner}"))),
            Err(error) => {
                Err(Error::new(ErrorKind::Other, format!("claiming {shown} for sandbox {id}")).caused_by(&error))
            }
        }
    }

    /// Claims a port for a sandbox; who has it if it is taken.
    fn claim_port(&self, id: &str, key: &str) -> io::Result<Option<String>> {
        make_directory(self.ports_dir())?;
        Ok(claim(&self.ports_dir().join(key.replace('/', "_")), id)?.filter(|owner| owner != id))
    }

    /// The ports of a sandbox.
    pub fn ports(&self, id: &str) -> io::Result<Vec<String>> {
        let held = held(&self.ports_dir())?;
        Ok(held.into_iter().filter(|(_, owner)| owner == id).map(|(name, _)| name).collect())
    }

    /// Frees all that a sandbox has.
    pub fn release(&self, id: &str) -> io::Result<()> {
        for directory in [self.ports_dir(), self.addresses()] {
            for (name, _) in held(&directory)?.into_iter().filter(|(_, owner)| owner == id) {
                fs::remove_file(directory.join(name))?;
            }
        }
        Ok(())
    }

    /// Every sandbox that has something.
    pub fn holders(&self) -> io::Result<HashSet<String>> {
        let (mut all, ports) = (held(&self.addresses())?, held(&self.ports_dir())?);
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

/// Where a port is in the packet filter's table: the map, and the key there.
pub(super) fn place(port: &PortMapping) -> (&'static str, String) {
    let (protocol, number) = (protocol(port), port.host_port);
    match port.host_ip {
        None => ("ports", format!("{protocol} . {number}")),
        Some(address) => ("addressed", format!("{address} . {protocol} . {number}")),
    }
}

fn protocol(port: &PortMapping) -> &'static str {
    match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Makes a file that says who has it; who has it already, if it exists.
fn claim(path: &Path, id: &str) -> io::Result<Option<String>> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => file.write_all(id.as_bytes()).map(|()| None),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_text(path, Links::Refuse, limits::OWN_FILE).map(Some)
        }
        Err(error) => Err(error),
    }
}

fn held(directory: &Path) -> io::Result<Vec<(String, String)>> {
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
    use super::{Leases, Subnet};

    #[test]
    fn addresses_are_leased_once_and_not_reused_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (leases, subnet) =
            (Leases::at(directory.path().to_owned()), Subnet::parse("10.1.2.0/29").expect("a subnet"));
        assert_eq!(subnet.gateway().to_string(), "10.1.2.1");
        let taken: Vec<_> = (0..5).map(|id| leases.take(&id.to_string(), &subnet).expect("room").to_string()).collect();
        assert_eq!(taken, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        assert!(leases.take("6", &subnet).is_err(), "full");
        leases.release("1").expect("freed");
        leases.release("3").expect("freed");
        assert_eq!(leases.take("7", &subnet).expect("room").to_string(), "10.1.2.3");
        assert_eq!(leases.take("8", &subnet).expect("room").to_string(), "10.1.2.5");
    }

    #[test]
    fn a_port_has_one_owner() {
        let directory = tempfile::tempdir().expect("a directory");
        let leases = Leases::at(directory.path().to_owned());
        assert_eq!(leases.claim_port("a", "ports { tcp . 80 }").expect("claimed"), None);
        assert_eq!(leases.claim_port("b", "ports { tcp . 80 }").expect("asked").as_deref(), Some("a"));
        assert_eq!(leases.ports("a").expect("listed"), ["ports { tcp . 80 }"]);
        leases.release("a").expect("freed");
        assert_eq!(leases.claim_port("b", "ports { tcp . 80 }").expect("claimed"), None);
    }
}
