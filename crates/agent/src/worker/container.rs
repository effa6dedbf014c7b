//! Makes the configuration of sandboxes and containers, from the manifest.

use std::{collections::BTreeMap, path::PathBuf};

use stanchion_plan::{
    Run,
    resources::{self, Machine},
    time::Stamp,
};
use stanchion_pod::{Container, Pod, Protocol};
use stanchion_runtime::{
    ContainerConfig, EnvVar, IdRange, IpcMode, Mount, NetworkMode, PortMapping, SandboxConfig, Sysctl, labels,
};

use super::security;
use crate::{config::AgentConfig, reference};

/// Returns the configuration of a sandbox. `attempt` counts the pod's earlier sandboxes.
pub(super) fn sandbox(
    pod: &Pod,
    attempt: u32,
    started_at: Stamp,
    hostname: String,
    user_namespace: Option<IdRange>,
    machine: Machine<'_>,
    config: &AgentConfig,
) -> SandboxConfig {
    let own_network = !pod.host_network;
    // Ports of sidecars are published too (R-SYNC-9). Other init containers end before anybody could use their ports.
    let sidecars = pod.init_containers.iter().filter(|init| init.runs_always());
    let ports = sidecars.chain(&pod.containers).flat_map(|container| &container.ports).filter(|_| own_network);
    let mut labels = pod_labels(pod);
    labels.insert(labels::STARTED_AT.to_owned(), started_at.to_string());
    SandboxConfig {
        name: pod.key.name.clone(),
        namespace: pod.key.namespace.clone(),
        uid: pod.uid.as_str().to_owned(),
        attempt,
        hostname: if own_network { hostname } else { String::new() },
        network: if own_network { NetworkMode::Pod } else { NetworkMode::Host },
        port_mappings: ports.filter_map(port_mapping).collect(),
        pid: security::pid_mode(pod),
        ipc: if pod.security.host_ipc { IpcMode::Host } else { IpcMode::Pod },
        user_namespace,
        sysctls: pod.security.sysctls.iter().cloned().map(|(name, value)| Sysctl { name, value }).collect(),
        cgroup: resources::cgroup(pod),
        resources: resources::of_pod(pod, config.pod_pids_limit, machine),
        labels,
    }
}

/// Returns the mapping of a port; `None` for a port without `hostPort`.
fn port_mapping(port: &stanchion_pod::Port) -> Option<PortMapping> {
    let protocol = match port.protocol {
        Protocol::Tcp => stanchion_runtime::Protocol::Tcp,
        Protocol::Udp => stanchion_runtime::Protocol::Udp,
        Protocol::Sctp => stanchion_runtime::Protocol::Sctp,
    };
    let (host_port, host_ip) = (port.host_port?, port.host_ip.filter(|ip| !ip.is_unspecified()));
    Some(PortMapping { protocol, host_port, container_port: port.container_port, host_ip })
}

/// Parts of a container's configuration that come from the prepared volumes, files and environment.
pub(super) struct Prepared {
    pub mounts: Vec<Mount>,
    /// Warnings about DNS settings that `resolv.conf` has no space for.
    pub warnings: Vec<String>,
    pub env: Vec<EnvVar>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
}

/// Inputs of a container's configuration besides its manifest.
pub(super) struct ContainerInputs<'a> {
    pub run: &'a Run,
    pub prepared: Prepared,
    pub log_path: PathBuf,
    pub machine: Machine<'a>,
    pub config: &'a AgentConfig,
}

/// Returns the configuration of a container.
pub(super) fn container(pod: &Pod, container: &Container, inputs: ContainerInputs<'_>) -> ContainerConfig {
    let Prepared { mounts, env, command, args, .. } = inputs.prepared;
    let mut labels = pod_labels(pod);
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    labels.insert(labels::BACKOFF_SECONDS.to_owned(), inputs.run.backoff.as_secs().to_string());
    ContainerConfig {
        sandbox: inputs.run.sandbox.clone(),
        name: container.name.clone(),
        attempt: inputs.run.attempt,
        image: reference::full(&container.image),
        command,
        args,
        env,
        working_dir: container.working_dir.clone(),
        mounts,
        resources: resources::of_container(pod, container, inputs.machine),
        security: security::security(pod, container, &inputs.config.state_dir, inputs.config.seccomp_default),
        tty: container.tty,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        log_path: inputs.log_path,
        labels,
    }
}

/// Returns the labels by which a later agent recognizes the pod, and stops it if its manifest is gone.
fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let pairs = [
        (labels::POD_NAME, pod.key.name.clone()),
        (labels::POD_NAMESPACE, pod.key.namespace.clone()),
        (labels::POD_UID, pod.uid.as_str().to_owned()),
        (labels::REVISION, pod.revision.as_str().to_owned()),
        (labels::GRACE_SECONDS, pod.grace.as_secs().to_string()),
    ];
    pairs.into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
}
