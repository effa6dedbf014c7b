//! A pod's status as Kubernetes writes it, from the observed state.
//!
//! # Layout
//! - [`status`]: the pod. `phase`, `conditions`: derived from container statuses. `container`: one container.

mod conditions;
mod container;
mod phase;
mod resources;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Instant};

use jiff::Timestamp;
use stanchion_pod::{
    Pod,
    k8s_openapi::{
        api::core::v1::{HostIP, PodIP, PodStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};
use stanchion_runtime::SandboxState;

use crate::{
    history::History,
    is_of_revision, order,
    outcome::{self, PodOutcome},
    reason::{Explanation, Reason},
    time::Stamp,
    view::View,
};
use container::ContainerStatuses;
pub use phase::Phase;

/// Status message of a pod past its `activeDeadlineSeconds` (R-ADL-1).
pub const DEADLINE_EXCEEDED: &str = "Pod was active on the node longer than the specified deadline";

/// Status message of a pod that ended because the node shuts down, in a kubelet's words (R-SHD-1).
pub const SHUT_DOWN: &str = "Pod was terminated in response to imminent node shutdown.";

/// A status, with its phase in a typed form.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The status as Kubernetes writes it.
    pub status: PodStatus,
    /// Phase of the pod.
    pub phase: Phase,
}

/// Inputs of a status.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The pod to show: the revision that runs, or is to run.
    pub pod: &'a Pod,
    /// Observed sandboxes and containers.
    pub view: &'a View,
    /// Name of the runtime, the prefix of the container ids; empty until the runtime has told it.
    pub runtime: &'a str,
    /// The worker's memory of its own tries.
    pub history: &'a History,
    /// Reason and message if nothing can be done now, e.g. because the backend is unreachable.
    pub obstacle: Option<Explanation>,
    /// Reason and message if the node rejects the pod.
    pub rejection: Option<Explanation>,
    /// Reason and message if the newest manifest is not in force.
    pub stale: Option<Explanation>,
    /// Addresses of the node.
    pub node_addresses: &'a [IpAddr],
    /// Time when the agent first saw this revision of the pod.
    pub first_seen: Stamp,
    /// The last shown status. Unchanged conditions keep their times, and a pod that has ended keeps its addresses.
    pub last: Option<&'a PodStatus>,
    /// Current instant, for everything that waits.
    pub now: Instant,
    /// Current time of day, for display.
    pub time_of_day: Timestamp,
}

/// Makes a pod's status from the facts.
pub fn status(facts: &Facts<'_>) -> Status {
    let Facts { pod, view, history, now, .. } = facts;
    if let Some(why) = facts.rejection.as_ref().filter(|_| view.sandboxes().next().is_none()) {
        let status = rejected(pod, facts.node_addresses, facts.first_seen.wall, why);
        return Status { status, phase: Phase::Failed };
    }
    let outcome = PodOutcome::of(pod, view, history, facts.first_seen, *now);
    let sandbox = view.sandboxes().rfind(|sandbox| is_of_revision(sandbox, pod));
    let ready_sandbox = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready);
    let is_initialized = sandbox.is_some_and(|sandbox| order::is_initialized(pod, sandbox, view, history));
    let statuses = ContainerStatuses { facts, outcome, is_initialized };
    let inits: Vec<_> = pod.init_containers.iter().map(|container| statuses.init_container(container)).collect();
    let mut containers: Vec<_> = pod.containers.iter().map(|container| statuses.container(container)).collect();
    let phase = phase::phase(pod, outcome, &inits, &containers);
    let conditions = conditions::conditions(facts, phase, ready_sandbox, &inits, &containers);
    containers.sort_by(|a, b| a.name.cmp(&b.name));

    // A pod that has ended keeps its addresses.
    let placed = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready || outcome.is_terminal());
    let addresses = match pod.host_network {
        true => facts.node_addresses,
        false => placed.map_or(&[][..], |sandbox| &sandbox.addresses),
    };
    let mut pod_ips: Vec<_> = addresses.iter().map(|ip| PodIP { ip: ip.to_string() }).collect();
    if pod_ips.is_empty() && outcome.is_terminal() {
        pod_ips = facts.last.and_then(|last| last.pod_ips.clone()).unwrap_or_default();
    }
    let (reason, message) = match (&facts.obstacle, outcome) {
        (_, PodOutcome::Evicted) => (Some(Reason::Evicted), history.evicted(pod).map(str::to_owned)),
        (_, PodOutcome::DeadlineExceeded) => (Some(Reason::DeadlineExceeded), Some(DEADLINE_EXCEEDED.to_owned())),
        (_, PodOutcome::ShutDown) => (Some(Reason::Terminated), Some(SHUT_DOWN.to_owned())),
        (Some(obstacle), _) => (Some(obstacle.reason), Some(obstacle.message.to_string())),
        _ => (None, None),
    };
    let status = PodStatus {
        phase: Some(phase.as_str().to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(containers),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        pod_ip: pod_ips.first().map(|ip| ip.ip.clone()),
        pod_ips: (!pod_ips.is_empty()).then_some(pod_ips),
        allocated_resources: pod.whole.requests.clone(),
        resources: Some(pod.whole.clone()),
        reason: reason.map(|reason| reason.to_string()),
        message,
        start_time: Some(Time(outcome::started_at(pod, view, history).unwrap_or(facts.first_seen).wall)),
        ..of_any(pod, facts.node_addresses)
    };
    Status { status, phase }
}

/// Returns the fields that the status of every pod has.
fn of_any(pod: &Pod, node_addresses: &[IpAddr]) -> PodStatus {
    let host_ips: Vec<_> = node_addresses.iter().map(|ip| HostIP { ip: ip.to_string() }).collect();
    PodStatus {
        qos_class: Some(pod.qos.as_str().to_owned()),
        host_ip: host_ips.first().map(|ip| ip.ip.clone()),
        host_ips: (!host_ips.is_empty()).then_some(host_ips),
        ..PodStatus::default()
    }
}

/// Returns the status of a pod that the node rejects (R-ADM-1). A changed node may admit it later.
pub fn rejected(pod: &Pod, node_addresses: &[IpAddr], first_seen: Timestamp, why: &Explanation) -> PodStatus {
    PodStatus {
        phase: Some(Phase::Failed.as_str().to_owned()),
        reason: Some(why.reason.to_string()),
        message: Some(format!("Pod was rejected: {}", why.message)),
        start_time: Some(Time(first_seen)),
        ..of_any(pod, node_addresses)
    }
}
