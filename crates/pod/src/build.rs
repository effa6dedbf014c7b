//! The checked wire type as a [`Pod`]. Nothing is wrong any more here; what cannot be is still reported, not trusted.

mod env;
mod volume;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as wire;

use crate::{
    Container, Pod, PodKey, PodUid, Port, Problem, Protocol, PullPolicy, Resources, RestartPolicy, Revision,
    defaults::resources::List, quantity::Quantity,
};

pub(crate) fn pod(wire: wire::Pod, uid: PodUid, revision: Revision) -> Result<Pod, Vec<Problem>> {
    let missing =
        || vec![Problem { field: "spec".to_owned(), message: "Required value".to_owned(), ..Problem::default() }];
    let spec = wire.spec.as_ref().ok_or_else(missing)?;
    let name = wire.metadata.name.clone().unwrap_or_default();
    let hostname = spec.hostname.clone().unwrap_or_else(|| short(&name));
    let containers = spec.containers.iter().map(|it| container(it, &wire)).collect();
    let volumes = spec.volumes.iter().flatten().map(|it| (it.name.clone(), volume::volume(it, &wire))).collect();
    Ok(Pod {
        key: PodKey { namespace: wire.metadata.namespace.clone().unwrap_or_default(), name },
        uid,
        revision,
        labels: wire.metadata.labels.clone().unwrap_or_default(),
        annotations: wire.metadata.annotations.clone().unwrap_or_default(),
        restart_policy: match spec.restart_policy.as_deref() {
            Some("OnFailure") => RestartPolicy::OnFailure,
            Some("Never") => RestartPolicy::Never,
            _ => RestartPolicy::Always,
        },
        grace: Duration::from_secs(spec.termination_grace_period_seconds.map_or(30, |it| it.max(1).unsigned_abs())),
        host_network: spec.host_network.unwrap_or(false),
        hostname,
        runtime_class: spec.runtime_class_name.clone(),
        containers,
        volumes,
        wire: Arc::new(wire),
    })
}

/// A pod's name as a host name: at most 63 characters, not ending in `-` or `.` (R-HOST).
fn short(name: &str) -> String {
    name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

fn container(wire: &wire::Container, pod: &wire::Pod) -> Container {
    let words = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    Container {
        name: wire.name.clone(),
        image: wire.image.clone().unwrap_or_default(),
        pull_policy: match wire.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        },
        command: words(&wire.command),
        args: words(&wire.args),
        working_dir: wire.working_dir.clone().filter(|path| !path.is_empty()),
        env_from: env::env_from(wire, pod),
        env: env::variables(wire, pod),
        ports: wire.ports.iter().flatten().filter_map(port).collect(),
        resources: wire.resources.as_ref().map(resources).unwrap_or_default(),
        mounts: wire.volume_mounts.iter().flatten().map(volume::mount).collect(),
    }
}

fn port(wire: &wire::ContainerPort) -> Option<Port> {
    Some(Port {
        name: wire.name.clone(),
        container_port: u16::try_from(wire.container_port).ok()?,
        host_port: wire.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
        host_ip: wire.host_ip.as_deref().and_then(|ip| ip.parse().ok()),
        protocol: match wire.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
    })
}

fn resources(wire: &wire::ResourceRequirements) -> Resources {
    let read = |list: &Option<List>, name: &str| Quantity::parse(&list.as_ref()?.get(name)?.0).ok()?.milli();
    let milli = |value: Option<u128>| value.and_then(|value| u64::try_from(value).ok());
    let whole = |value: Option<u128>| value.and_then(|value| u64::try_from(value.div_ceil(1000)).ok());
    Resources {
        cpu_request: milli(read(&wire.requests, "cpu")),
        cpu_limit: milli(read(&wire.limits, "cpu")),
        memory_request: whole(read(&wire.requests, "memory")),
        memory_limit: whole(read(&wire.limits, "memory")),
    }
}
