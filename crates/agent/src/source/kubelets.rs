//! Containers of a kubelet that run although it is away: their pods are still its own, or they would run twice.
//!
//! They are found without asking their containerd, which may be gone with the kubelet, as K3s's is: in the directories that
//! it keeps for running containers. CRI notes the pod's name in their OCI configuration.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use stanchion_pod::PodKey;
use stanchion_untrusted::{Links, read, read_kernel, read_text};

use crate::limits;

/// Where CRI's containers are below a containerd's state directory.
const BUNDLES: &str = "io.containerd.runtime.v2.task/k8s.io";

/// What is used of an OCI configuration.
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

    fn note(&self, name: &str) -> Option<&str> {
        self.annotations.get(&format!("io.kubernetes.cri.{name}")).map(String::as_str)
    }
}

/// The directories of CRI's containers below these state directories of containerds.
pub(super) fn bundles(state: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
    state.iter().map(|state| state.join(BUNDLES))
}

/// Namespaces and names of pods with running containers, below these state directories of containerds.
pub(super) fn running(state: &[PathBuf]) -> Vec<(String, String)> {
    bundles(state).flat_map(|bundles| of(&bundles)).collect()
}

fn of(bundles: &Path) -> Vec<(String, String)> {
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
        // A sandbox whose containers have ended does nothing.
        if bundle.note("container-type") != Some("container") || !is_running(&path) {
            return None;
        }
        // Older versions note the name in the sandbox's only.
        let sandbox = bundle.note("sandbox-id").and_then(|id| Bundle::read(&bundles.join(id)));
        let note = |name: &str| {
            let of_sandbox = || sandbox.as_ref()?.note(name).map(str::to_owned);
            bundle.note(name).map(str::to_owned).or_else(of_sandbox)
        };
        Some((note("sandbox-namespace")?, note("sandbox-name")?))
    };
    entries.filter_map(pod).collect()
}

/// Whether the container's first process runs: its number may be another's by now, so its cgroup must have the id.
fn is_running(bundle: &Path) -> bool {
    let pid = read_text(bundle.join("init.pid"), Links::Follow, limits::OWN_FILE).unwrap_or_default();
    let cgroup = read_kernel(format!("/proc/{}/cgroup", pid.trim())).unwrap_or_default();
    let id = bundle.file_name().unwrap_or_default().to_string_lossy();
    !pid.trim().is_empty() && cgroup.contains(&*id)
}

/// Whether a kubelet's pod is this one. Its node may have another name for the kubelet, which is the end of the pod's.
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
