//! The files in `/etc` that the agent manages in a pod's containers.

use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use stanchion_pod::Pod;

/// Writes `hosts`, `hostname` and `resolv.conf` into `directory`; answers where each goes in a container.
pub(crate) fn write(directory: &Path, pod: &Pod, addresses: &[IpAddr]) -> io::Result<Vec<(PathBuf, &'static str)>> {
    let hosts = match pod.host_network {
        true => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        false => hosts(&pod.hostname, addresses),
    };
    let hostname = match pod.host_network {
        true => fs::read_to_string("/etc/hostname").unwrap_or_default(),
        false => format!("{}\n", pod.hostname),
    };
    let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let files = [
        ("hosts", hosts, "/etc/hosts"),
        ("hostname", hostname, "/etc/hostname"),
        ("resolv.conf", resolver, "/etc/resolv.conf"),
    ];
    let mut mounts = Vec::with_capacity(files.len());
    for (name, content, destination) in files {
        let path = directory.join(name);
        // Containers have these files mounted: they are written in place, and only when they differ.
        if fs::read_to_string(&path).ok().as_deref() != Some(&content) {
            fs::write(&path, content)?;
        }
        mounts.push((path, destination));
    }
    Ok(mounts)
}

fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut hosts = String::from(
        "# Managed by Stanchion.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        writeln!(hosts, "{address}\t{hostname}").expect("writing to a String cannot fail");
    }
    hosts
}
