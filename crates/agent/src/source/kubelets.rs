//! Finds containers that still run although their kubelet is away. Their pods stay the kubelet's, as they would run
//! twice otherwise.
//!
//! It searches the directories that containerd keeps for running containers, and does not ask containerd, which may
//! have gone with the kubelet, as K3s's does. The CRI plugin writes the pod's name into each container's OCI
//! configuration.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use stanchion_pod::PodKey;
use stanchion_untrusted::{Links, read, read_kernel, read_text};

use crate::limits;

/// Directory of the bundles of CRI containers, below containerd's state directory.
const BUNDLES: &str = "io.containerd.runtime.v2.task/k8s.io";

/// The used part of a bundle's OCI configuration.
#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    annotations: HashMap<String, String>,
}

impl Bundle {
    fn read(path: &Path) -> Option<Self> {
        let bytes = read(path.join("config.json"), Links::Follow, limits::OWN_FILE).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(&format!("io.kubernetes.cri.{name}")).map(String::as_str)
    }
}

/// Returns the directories of CRI bundles in these containerd state directories.
pub(super) fn bundles(state: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    state.iter().map(|state| state.join(BUNDLES))
}

/// Returns namespaces and names of pods with running containers, from these containerd state directories.
pub(super) fn running(state: &[PathBuf]) -> Vec<(String, String)> {
    bundles(state).flat_map(|bundles| pods_of(&bundles)).collect()
}

fn pods_of(bundles: &Path) -> Vec<(String, String)> {
    let entries = match fs::read_dir(bundles) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %bundles.display(), %error, "looking for a kubelet's containers failed");
            }
            return Vec::new();
        }
    };
    let pod = |entry: io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let bundle = Bundle::read(&path)?;
        // Sandboxes do not count: one whose containers have ended does nothing.
        if bundle.annotation("container-type") != Some("container") || !is_running(&path) {
            return None;
        }
        // Older containerd versions write the name into the sandbox's configuration only.
        let sandbox = bundle.annotation("sandbox-id").and_then(|id| Bundle::read(&bundles.join(id)));
        let annotation = |name: &str| {
            let of_sandbox = || sandbox.as_ref()?.annotation(name).map(str::to_owned);
            bundle.annotation(name).map(str::to_owned).or_else(of_sandbox)
        };
        Some((annotation("sandbox-namespace")?, annotation("sandbox-name")?))
    };
    entries.filter_map(pod).collect()
}

/// Returns whether the container's init process runs. Its PID may belong to another process by now, so the process's
/// cgroup must contain the container's id.
fn is_running(bundle: &Path) -> bool {
    let pid = read_text(bundle.join("init.pid"), Links::Follow, limits::OWN_FILE).unwrap_or_default();
    let cgroup = read_kernel(format!("/proc/{}/cgroup", pid.trim())).unwrap_or_default();
    let id = bundle.file_name().unwrap_or_default().to_string_lossy();
    !pid.trim().is_empty() && cgroup.contains(&*id)
}

/// Returns whether a kubelet's pod is this one. The kubelet may have another name for the node, with which its pod's
/// name ends.
pub(super) fn is_same(pod: &PodKey, node_name: &str, (namespace, name): &(String, String)) -> bool {
    let plain = pod.name.strip_suffix(node_name).unwrap_or(&pod.name);
    *namespace == pod.namespace && (*name == pod.name || plain.ends_with('-') && name.starts_with(plain))
}

#[cfg(test)]
mod tests {
    use stanchion_pod::PodKey;

    use super::is_same;

    #[test]
    fn a_pod_is_known_whatever_the_kubelet_calls_the_node() {
        let pod = PodKey { namespace: "kube-system".to_owned(), name: "etcd-node-1".to_owned() };
        let is = |namespace: &str, name: &str| is_same(&pod, "node-1", &(namespace.to_owned(), name.to_owned()));
        assert!(is("kube-system", "etcd-node-1") && is("kube-system", "etcd-worker"));
        assert!(!is("default", "etcd-node-1") && !is("kube-system", "etc-node-1") && !is("kube-system", "etcd"));
    }
}
