//! Builds a [`Pod`] from the validated wire type. Impossible states are still reported as problems, not trusted.

mod env;
pub(crate) mod growth;
pub(crate) mod lifecycle;
mod network;
mod resources;
mod security;
pub(crate) mod volume;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1 as wire;

use crate::{
    Container, Origin, Pod, PodKey, PodUid, Port, Problem, Protocol, PullPolicy, RestartPolicy, Revision,
    expand::expand,
};

pub(crate) fn pod(wire: wire::Pod, uid: PodUid, revision: Revision, origin: Origin) -> Result<Pod, Vec<Problem>> {
    let missing =
        || vec![Problem { field: "spec".to_owned(), message: "Required value".to_owned(), ..Problem::default() }];
    let spec = wire.spec.as_ref().ok_or_else(missing)?;
    let name = wire.metadata.name.clone().unwrap_or_default();
    let (hostname, domain) = network::names(&wire, spec);
    let init_containers = spec.init_containers.iter().flatten().map(|it| container(it, &wire)).collect();
    let containers = spec.containers.iter().map(|it| container(it, &wire)).collect();
    let volumes = spec.volumes.iter().flatten().map(|it| (it.name.clone(), volume::volume(it, &wire))).collect();
    Ok(Pod {
        key: PodKey { namespace: wire.metadata.namespace.clone().unwrap_or_default(), name },
        uid,
        revision,
        origin,
        labels: wire.metadata.labels.clone().unwrap_or_default(),
        annotations: wire.metadata.annotations.clone().unwrap_or_default(),
        restart_policy: lifecycle::restart_policy(spec.restart_policy.as_deref()).unwrap_or(RestartPolicy::Always),
        grace: seconds(Some(spec.termination_grace_period_seconds.map_or(30, |it| it.max(1)))),
        host_network: spec.host_network.unwrap_or(false),
        security: security::pod(spec),
        qos: resources::qos(spec),
        resources: resources::of_pod(spec),
        total: resources::total(spec),
        whole: resources::whole(spec),
        hostname,
        domain,
        fqdn: spec.set_hostname_as_fqdn.unwrap_or(false),
        host_aliases: network::aliases(spec),
        dns: network::dns(spec),
        pull_secrets: env::pull_secrets(&wire, spec),
        fs_group: volume::fs_group(spec),
        readiness_gates: spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.clone()).collect(),
        runtime_class: spec.runtime_class_name.clone(),
        active_deadline: spec.active_deadline_seconds.map(|it| seconds(Some(it))),
        init_containers,
        containers,
        volumes,
        wire: Arc::new(wire),
    })
}

fn container(wire: &wire::Container, pod: &wire::Pod) -> Container {
    let ports: Vec<_> = wire.ports.iter().flatten().filter_map(port).collect();
    // Commands of probes expand only variables with a literal `value`, as kubelet's do.
    let literals: BTreeMap<_, _> =
        wire.env.iter().flatten().filter_map(|it| Some((it.name.as_str(), it.value.as_deref()?))).collect();
    let context =
        lifecycle::Context { ports: &ports, expand: &|word| expand(word, |name| literals.get(name).copied()) };
    let hook = |of: fn(&wire::Lifecycle) -> Option<&wire::LifecycleHandler>| {
        context.hook(wire.lifecycle.as_ref().and_then(of)?)
    };
    let probe = |wire: &Option<wire::Probe>| context.probe(wire.as_ref()?);
    let words = |words: &Option<Vec<String>>| words.clone().filter(|words| !words.is_empty());
    Container {
        name: wire.name.clone(),
        image: wire.image.clone().unwrap_or_default(),
        pull_policy: pull_policy(wire.image_pull_policy.as_deref()),
        command: words(&wire.command),
        args: words(&wire.args),
        working_dir: wire.working_dir.clone().filter(|path| !path.is_empty()),
        env_from: env::env_from(wire, pod),
        env: env::variables(wire, pod),
        resources: wire.resources.as_ref().map(resources::resources).unwrap_or_default(),
        security: security::container(wire, pod),
        tty: wire.tty.unwrap_or(false),
        stdin: wire.stdin.unwrap_or(false),
        stdin_once: wire.stdin_once.unwrap_or(false),
        mounts: wire.volume_mounts.iter().flatten().map(volume::mount).collect(),
        restart: lifecycle::restart(wire),
        post_start: hook(|lifecycle| lifecycle.post_start.as_ref()),
        pre_stop: hook(|lifecycle| lifecycle.pre_stop.as_ref()),
        startup: probe(&wire.startup_probe),
        liveness: probe(&wire.liveness_probe),
        readiness: probe(&wire.readiness_probe),
        message_path: wire.termination_message_path.clone().filter(|path| !path.is_empty()),
        message_from_log: wire.termination_message_policy.as_deref() == Some("FallbackToLogsOnError"),
        ports,
    }
}

fn pull_policy(policy: Option<&str>) -> PullPolicy {
    match policy {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

/// Maximum span of time, seconds: 68 years. The present time plus this much cannot overflow.
const MAX_SECONDS: i64 = i32::MAX as i64;

fn seconds(number: Option<i64>) -> Duration {
    Duration::from_secs(number.unwrap_or(0).clamp(0, MAX_SECONDS).unsigned_abs())
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
