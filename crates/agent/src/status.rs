//! A pod's status as Kubernetes writes it, from what was observed.
//!
//! # Layout
//! - [`status`]: the pod. [`container`]: one container. [`conditions`]: the conditions.

mod conditions;
mod container;

use std::sync::Arc;

use jiff::Timestamp;
use stanchion_pod::{
    Pod,
    k8s_openapi::{
        api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};
use stanchion_runtime::{ContainerState, SandboxInfo, SandboxState};

use crate::plan::{history::History, restart, view::View};

/// What a status is made from.
pub(crate) struct Facts<'a> {
    /// The pod that is shown: the revision that runs, or is to run.
    pub pod: &'a Pod,
    /// What is observed.
    pub view: &'a View,
    /// What was tried.
    pub history: &'a History,
    /// Why nothing can be done now, e.g. an unreachable backend: reason and message.
    pub obstacle: Option<(&'static str, String)>,
    /// Why the newest manifest is not in force: reason and message.
    pub stale: Option<(&'static str, Arc<str>)>,
    /// Addresses of the node.
    pub node_addresses: &'a [std::net::IpAddr],
    /// When the agent first saw the pod.
    pub first_seen: Timestamp,
    /// The conditions as they were shown last: their times hold while they do not change.
    pub last: Option<&'a PodStatus>,
    /// The time of day.
    pub now: Timestamp,
}

/// The status.
pub(crate) fn status(facts: &Facts<'_>) -> PodStatus {
    let Facts { pod, view, .. } = facts;
    let sandbox = view.sandboxes().rfind(|sandbox| is_of(sandbox, pod));
    let mut containers: Vec<ContainerStatus> =
        pod.containers.iter().map(|container| container::status(facts, container)).collect();
    let phase = phase(facts, &containers);
    containers.sort_by(|a, b| a.name.cmp(&b.name));

    let ready_sandbox = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready);
    let addresses = match pod.host_network {
        true => facts.node_addresses,
        false => ready_sandbox.map_or(&[][..], |sandbox| &sandbox.addresses),
    };
    let pod_ips: Vec<_> = addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect();
    let host_ips: Vec<_> = facts.node_addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    let conditions = conditions::conditions(facts, phase, ready_sandbox.is_some(), &containers);
    let (reason, message) =
        facts.obstacle.clone().map_or((None, None), |(reason, message)| (Some(reason), Some(message)));
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(containers),
        host_ip: host_ips.first().map(|ip| ip.ip.clone()),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        pod_ip: pod_ips.first().map(|ip| ip.ip.clone()),
        pod_ips: (!pod_ips.is_empty()).then_some(pod_ips),
        qos_class: Some(pod.qos.as_str().to_owned()),
        reason: reason.map(str::to_owned),
        message,
        start_time: Some(Time(sandbox.map_or(facts.first_seen, |sandbox| sandbox.created_at))),
        ..PodStatus::default()
    }
}

/// The phase (R-PH-2 to R-PH-5).
fn phase(facts: &Facts<'_>, containers: &[ContainerStatus]) -> &'static str {
    let state = |container: &ContainerStatus| container.state.clone().unwrap_or_default();
    let last = |container: &ContainerStatus| container.last_state.clone().unwrap_or_default();
    let is_waiting =
        |container: &ContainerStatus| state(container).waiting.is_some() && last(container).terminated.is_none();
    if containers.iter().any(is_waiting) {
        return "Pending";
    }
    if containers.iter().any(|container| state(container).running.is_some()) {
        return "Running";
    }
    let newest = |name: &str| facts.view.newest(facts.pod, name).map(|newest| newest.container.state.clone());
    let codes: Vec<_> = containers
        .iter()
        .map(|container| match newest(&container.name) {
            Some(ContainerState::Exited { code, .. }) => Some(code),
            _ => None,
        })
        .collect();
    let restarts =
        |code: &Option<Option<i32>>| code.is_none_or(|code| restart::restarts(facts.pod.restart_policy, code));
    match () {
        () if codes.iter().any(restarts) => "Running",
        () if codes.iter().all(|code| *code == Some(Some(0))) => "Succeeded",
        () => "Failed",
    }
}

fn is_of(sandbox: &SandboxInfo, pod: &Pod) -> bool {
    crate::plan::is_current(sandbox, pod)
}
