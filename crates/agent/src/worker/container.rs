//! A container's and a sandbox's configuration, from the manifest.

use std::{collections::BTreeMap, path::PathBuf};

use stanchion_pod::{Container, Pod, Protocol, Resources};
use stanchion_runtime::{
    ContainerConfig, LinuxResources, Mount, MountPropagation, NetworkMode, PortMapping, SandboxConfig, labels,
};

use super::prepare::Prepared;
use crate::{plan::Run, reference};

/// CPU time is shared out in periods of this length, µs.
const CPU_PERIOD: u64 = 100_000;

pub(super) fn sandbox(pod: &Pod, attempt: u32) -> SandboxConfig {
    let own_network = !pod.host_network;
    let ports = pod.containers.iter().flat_map(|container| &container.ports).filter(|_| own_network);
    SandboxConfig {
        name: pod.key.name.clone(),
        namespace: pod.key.namespace.clone(),
        uid: pod.uid.as_str().to_owned(),
        attempt,
        hostname: if own_network { pod.hostname.clone() } else { String::new() },
        network: if own_network { NetworkMode::Pod } else { NetworkMode::Host },
        port_mappings: ports.filter_map(port_mapping).collect(),
        cgroup: format!("pod{}", pod.uid),
        labels: pod_labels(pod),
    }
}

fn port_mapping(port: &stanchion_pod::Port) -> Option<PortMapping> {
    let protocol = match port.protocol {
        Protocol::Tcp => stanchion_runtime::Protocol::Tcp,
        Protocol::Udp => stanchion_runtime::Protocol::Udp,
        Protocol::Sctp => stanchion_runtime::Protocol::Sctp,
    };
    let (host_port, host_ip) = (port.host_port?, port.host_ip.filter(|ip| !ip.is_unspecified()));
    Some(PortMapping { protocol, host_port, container_port: port.container_port, host_ip })
}

/// What a container is started with beyond its manifest.
pub(super) struct Start<'a> {
    pub run: &'a Run,
    pub prepared: Prepared,
    pub log_path: PathBuf,
    /// Memory of the node, bytes.
    pub memory_capacity: u64,
}

pub(super) fn container(pod: &Pod, container: &Container, start: Start<'_>) -> ContainerConfig {
    let Prepared { volumes, etc, env, command, args } = start.prepared;
    let mut mounts: Vec<Mount> = Vec::with_capacity(container.mounts.len() + etc.len());
    for (source, destination) in etc {
        // What the manifest mounts there wins.
        if !container.mounts.iter().any(|mount| mount.path == destination) {
            mounts.push(bind(source, destination, false));
        }
    }
    for mount in &container.mounts {
        let source = volumes.get(&mount.volume).expect("validation: every mount names a volume of the pod");
        mounts.push(bind(source.clone(), &mount.path, mount.read_only));
    }
    let mut labels = pod_labels(pod);
    labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    labels.insert(labels::BACKOFF_SECONDS.to_owned(), start.run.backoff.as_secs().to_string());
    ContainerConfig {
        sandbox: start.run.sandbox.clone(),
        name: container.name.clone(),
        attempt: start.run.attempt,
        image: reference::full(&container.image),
        command,
        args,
        env,
        working_dir: container.working_dir.clone(),
        mounts,
        resources: resources(&container.resources, start.memory_capacity),
        log_path: start.log_path,
        labels,
    }
}

fn bind(source: PathBuf, destination: &str, read_only: bool) -> Mount {
    Mount { source, destination: destination.into(), read_only, propagation: MountPropagation::Private }
}

/// The agent's memory on the node: who this is and how it is to be stopped when its manifest is gone.
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

/// The kernel's numbers for requests and limits, by kubelet's arithmetic (R-RES).
fn resources(resources: &Resources, memory_capacity: u64) -> LinuxResources {
    let cpu_request = resources.cpu_request.or(resources.cpu_limit);
    let cpu_quota = resources.cpu_limit.map(|milli| (milli * CPU_PERIOD / 1000).max(1000));
    LinuxResources {
        cpu_shares: Some(cpu_request.map_or(2, |milli| (milli * 1024 / 1000).clamp(2, 262_144))),
        cpu_quota: cpu_quota.and_then(|quota| i64::try_from(quota).ok()),
        cpu_period: cpu_quota.map(|_| CPU_PERIOD),
        memory_limit: resources.memory_limit.and_then(|bytes| i64::try_from(bytes).ok()),
        oom_score_adj: Some(oom_score_adj(resources, memory_capacity)),
    }
}

/// Which processes the kernel kills first when memory runs out: best effort before burstable before guaranteed.
fn oom_score_adj(resources: &Resources, memory_capacity: u64) -> i32 {
    const GUARANTEED: i32 = -997;
    let Resources { cpu_request, cpu_limit, memory_request, memory_limit } = *resources;
    if cpu_limit.is_some() && memory_limit.is_some() && cpu_request == cpu_limit && memory_request == memory_limit {
        return GUARANTEED;
    }
    if [cpu_request, cpu_limit, memory_request, memory_limit].iter().all(Option::is_none) {
        return 1000;
    }
    let share = 1000 * memory_request.unwrap_or(0) / memory_capacity.max(1);
    let adjust = 1000 - i32::try_from(share.min(1000)).expect("at most 1000");
    adjust.clamp(1000 + GUARANTEED, 999)
}

#[cfg(test)]
mod tests {
    use stanchion_pod::Resources;

    use super::{oom_score_adj, resources};

    #[test]
    fn kernel_numbers_follow_kubelets_arithmetic() {
        let limits = Resources { cpu_limit: Some(500), memory_limit: Some(64 << 20), ..Resources::default() };
        let numbers = resources(&limits, 1 << 30);
        assert_eq!(
            (numbers.cpu_shares, numbers.cpu_quota, numbers.cpu_period),
            (Some(512), Some(50_000), Some(100_000))
        );
        assert_eq!(numbers.memory_limit, Some(64 << 20));
        assert_eq!(resources(&Resources::default(), 1 << 30).cpu_shares, Some(2));
    }

    #[test]
    fn oom_scores_order_the_qos_classes() {
        let guaranteed = Resources {
            cpu_request: Some(100),
            cpu_limit: Some(100),
            memory_request: Some(1 << 20),
            memory_limit: Some(1 << 20),
        };
        let burstable = Resources { memory_request: Some(512 << 20), ..Resources::default() };
        assert_eq!(oom_score_adj(&guaranteed, 1 << 30), -997);
        assert_eq!(oom_score_adj(&burstable, 1 << 30), 500);
        assert_eq!(oom_score_adj(&Resources::default(), 1 << 30), 1000);
    }
}
