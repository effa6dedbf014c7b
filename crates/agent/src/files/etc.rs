//! Writes the files in `/etc` that the agent manages in a pod's containers.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
};

use stanchion_pod::Pod;

use super::{resolver, whole};

/// The written files, and warnings about settings that had to be left out.
pub(crate) struct Etc {
    /// Each file, with its path in a container.
    pub files: Vec<(PathBuf, &'static str)>,
    /// The warnings, for events of the pod.
    pub warnings: Vec<String>,
}

/// The longest host name that the kernel takes (R-HOST-3).
const MAX_HOST_NAME: usize = 64;

/// Returns the kernel's host name in a pod with a network of its own (R-HOST-1 to R-HOST-3), or a message if it is too long.
pub(crate) fn host_name(pod: &Pod) -> Result<String, String> {
    let Some(domain) = pod.domain.as_deref().filter(|_| pod.fqdn) else { return Ok(pod.hostname.clone()) };
    let name = format!("{}.{domain}", pod.hostname);
    match name.len() > MAX_HOST_NAME {
        false => Ok(name),
        true => Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({MAX_HOST_NAME} characters is \
             the max, {} characters requested)",
            name.len()
        )),
    }
}

/// Paths of the managed files in a container.
pub(super) const PLACES: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Writes `hosts`, `hostname` and `resolv.conf` into `directory`.
pub(crate) fn write(directory: &Path, pod: &Pod, addresses: &[IpAddr], resolv_conf: Option<&Path>) -> io::Result<Etc> {
    let of_node = |path: &str| if pod.host_network { resolver::node_file(Path::new(path)) } else { Ok(Vec::new()) };
    let hostname = match pod.host_network {
        true => of_node("/etc/hostname")?,
        false => format!("{}\n", host_name(pod).unwrap_or_else(|_| pod.hostname.clone())).into_bytes(),
    };
    let node = resolver::of_node(resolv_conf, pod.host_network)?;
    let (resolver, warnings) = resolver::of(&pod.dns, &node);
    let files = [
        ("hosts", hosts(pod, addresses, &of_node("/etc/hosts")?), "/etc/hosts"),
        ("hostname", hostname, "/etc/hostname"),
        ("resolv.conf", resolver, "/etc/resolv.conf"),
    ];
    let mut written = Vec::with_capacity(files.len());
    for (name, content, destination) in files {
        let path = directory.join(name);
        whole::write_in_place(&path, &content)?;
        written.push((path, destination));
    }
    Ok(Etc { files: written, warnings })
}

/// Returns the content of `/etc/hosts` (R-HOST-6, R-HOST-7).
fn hosts(pod: &Pod, addresses: &[IpAddr], node: &[u8]) -> Vec<u8> {
    let mut hosts = match pod.host_network {
        // The node's file, byte for byte.
        true => [b"# Kubernetes-managed hosts file (host network).\n", node].concat(),
        false => "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                  fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .into(),
    };
    let mut line = |line: std::fmt::Arguments<'_>| hosts.write_fmt(line).expect("writing to memory cannot fail");
    for address in addresses.iter().filter(|_| !pod.host_network) {
        match &pod.domain {
            Some(domain) => line(format_args!("{address}\t{}.{domain}\t{}\n", pod.hostname, pod.hostname)),
            None => line(format_args!("{address}\t{}\n", pod.hostname)),
        }
    }
    if !pod.host_aliases.is_empty() {
        line(format_args!("\n# Entries added by HostAliases.\n"));
    }
    for alias in &pod.host_aliases {
        line(format_args!("{}\t{}\n", alias.address, alias.names.join("\t")));
    }
    hosts
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt, symlink},
    };

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn pod(spec: &str) -> Pod {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: stores}}\nspec:\n  containers: [{{name: a, image: a}}]\n{spec}"
        );
        let manifest = stanchion_pod::decode(manifest.as_bytes(), "knode");
        manifest.unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn address() -> [IpAddr; 1] {
        ["10.1.0.2".parse().expect("an address")]
    }

    const HEAD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost \
                        ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

    // R-HOST-2.
    #[test]
    fn hosts_are_as_recorded() {
        // network/host-aliases-hostname-subdomain, network/dns-none and network/host-network of the recordings.
        let aliased = pod(
            "  hostname: web-0\n  subdomain: web\n  hostAliases:\n  - {ip: 10.1.2.3, hostnames: [db, db.internal]}\n  - {ip: \
             10.1.2.4, hostnames: [cache]}\n",
        );
        let entries = "10.1.0.2\tweb-0.web.stores.svc.\tweb-0\n\n# Entries added by HostAliases.\n10.1.2.3\tdb\tdb.internal\n\
                       10.1.2.4\tcache\n";
        assert_eq!(hosts(&aliased, &address(), b""), format!("{HEAD}{entries}").as_bytes(), "R-HOST-6");
        assert_eq!(host_name(&aliased).as_deref(), Ok("web-0"), "R-HOST-1");
        assert_eq!(hosts(&pod(""), &address(), b""), format!("{HEAD}10.1.0.2\ta-knode\n").as_bytes(), "R-HOST-6");
        let shared = pod("  hostNetwork: true\n  hostAliases: [{ip: 10.9.9.9, hostnames: [alias]}]\n");
        let expected =
            b"# Kubernetes-managed hosts file (host network).\n127.0.0.1 node # caf\xe9\n\n# Entries added by \
                         HostAliases.\n10.9.9.9\talias\n";
        assert_eq!(hosts(&shared, &address(), b"127.0.0.1 node # caf\xe9\n"), expected, "R-HOST-7");
    }

    #[test]
    fn the_kernels_name_is_the_whole_one_where_that_is_asked_for() {
        // network/fqdn-as-hostname of the recordings.
        let whole = pod("  hostname: node-a\n  subdomain: ring\n  setHostnameAsFQDN: true\n");
        assert_eq!(host_name(&whole).as_deref(), Ok("node-a.ring.stores.svc."), "R-HOST-3");
        let long = format!("  hostname: {}\n  subdomain: ring\n  setHostnameAsFQDN: true\n", "a".repeat(50));
        let error = host_name(&pod(&long)).expect_err("it is too long");
        assert!(error.contains("is too long (64 characters is the max, 67 characters requested)"), "R-HOST-3: {error}");
        let other = pod("  hostnameOverride: other\n");
        assert_eq!((host_name(&other).as_deref(), other.domain), (Ok("other"), None), "R-HOST-1");
    }

    // A container may change these files; its changes last until the agent writes the files anew.
    #[test]
    fn what_a_container_made_of_its_files_is_neither_read_nor_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).expect("made");
        let outside = dir.path().join("theirs");
        fs::write(&outside, "theirs").expect("written");
        let pod = pod("");
        let resolv_conf = dir.path().join("resolv.conf");
        fs::write(&resolv_conf, b"# caf\xe9\nsearch caf\xe9.example\nnameserver 192.0.2.1\n").expect("written");
        let write = || write(&etc, &pod, &address(), Some(&resolv_conf));
        write().expect("they are written");
        let inode = fs::metadata(etc.join("hosts")).expect("it is there").ino();
        let hosts = fs::File::options().write(true).open(etc.join("hosts")).expect("opened");
        hosts.set_len(1 << 40).expect("it is a terabyte");
        fs::remove_file(etc.join("hostname")).expect("removed");
        mknodat(CWD, etc.join("hostname"), FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
        fs::remove_file(etc.join("resolv.conf")).expect("removed");
        symlink(&outside, etc.join("resolv.conf")).expect("linked");
        write().expect("they are written");
        let content = fs::read(etc.join("hosts")).expect("it is there");
        assert_eq!(content, format!("{HEAD}10.1.0.2\ta-knode\n").as_bytes());
        assert_eq!(fs::metadata(etc.join("hosts")).expect("it is there").ino(), inode, "containers have it mounted");
        assert_eq!(fs::read(etc.join("hostname")).expect("a file"), b"a-knode\n");
        let resolver = fs::read(etc.join("resolv.conf")).expect("it is there");
        assert_eq!(resolver, b"search caf\xe9.example\nnameserver 192.0.2.1\n");
        assert_eq!(fs::read(&outside).expect("it is there"), b"theirs");
    }
}
