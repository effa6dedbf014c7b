//! The conditions of a pod (R-CND), and those that Stanchion adds.

use stanchion_pod::{
    Pod,
    k8s_openapi::{
        api::core::v1::{ContainerStatus, PodCondition, PodStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    },
};

use stanchion_runtime::SandboxInfo;

use super::{Facts, Phase};
use crate::{reason::Explanation, restart_all};

/// Condition that is true while the newest manifest is in force. It is false while a broken edit or a missing image
/// keeps the last good revision running.
const MANIFEST_IN_FORCE: &str = "stanchion.dev/ManifestInForce";

/// Returns the conditions of a pod. `live` is the ready sandbox of the shown revision. The containers are in the
/// manifest's order.
pub fn conditions(
    facts: &Facts<'_>,
    phase: Phase,
    live: Option<&SandboxInfo>,
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Vec<PodCondition> {
    let ready = ready(facts.pod, phase, inits, containers);
    let values = [
        (
            "PodReadyToStartContainers",
            if live.is_some() { ConditionValue::yes() } else { ConditionValue::no("", String::new()) },
        ),
        ("Initialized", initialized(facts.pod, phase, inits, containers)),
        ("Ready", if ready.holds { gated(facts.pod) } else { ready.clone() }),
        ("ContainersReady", ready),
        ("PodScheduled", ConditionValue::yes()),
    ];
    let restart_all = restart_all::is_possible(facts.pod).then(|| {
        let holds = live.is_some_and(|live| restart_all::trigger(facts.pod, live, facts.view).is_some());
        ("AllContainersRestarting", ConditionValue { holds, ..ConditionValue::yes() })
    });
    let no = |why: &Explanation| ConditionValue::no(why.reason.as_str(), why.message.to_string());
    let stale = facts.stale.as_ref().map(|why| (MANIFEST_IN_FORCE, no(why)));
    values.into_iter().chain(restart_all).chain(stale).map(|(kind, value)| condition(facts, kind, value)).collect()
}

/// Checks that all containers are ready, including sidecars (R-CND-5, R-INIT-9).
fn ready(pod: &Pod, phase: Phase, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> ConditionValue {
    let sidecars = inits.iter().filter(|init| is_sidecar(pod, init));
    let unready: Vec<_> = sidecars.chain(containers).filter(|it| !it.ready).map(|it| it.name.as_str()).collect();
    match phase {
        Phase::Succeeded => ConditionValue::no("PodCompleted", String::new()),
        Phase::Failed => ConditionValue::no("PodFailed", String::new()),
        _ if unready.is_empty() => ConditionValue::yes(),
        _ => {
            ConditionValue::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
        }
    }
}

/// Checks that the pod has no readiness gates (R-CND-6): on a node without a control plane nobody sets their
/// conditions.
fn gated(pod: &Pod) -> ConditionValue {
    match pod.readiness_gates.first() {
        None => ConditionValue::yes(),
        Some(gate) => {
            let message = format!("corresponding condition of pod readiness gate {gate:?} does not exist.");
            ConditionValue::no("ReadinessGatesNotReady", message)
        }
    }
}

/// Checks that all init containers have completed once, or started if sidecars (R-CND-4).
fn initialized(pod: &Pod, phase: Phase, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> ConditionValue {
    let is_done = |init: &ContainerStatus| if is_sidecar(pod, init) { init.started == Some(true) } else { init.ready };
    let has_begun = containers.iter().any(|container| {
        let states = [container.state.as_ref(), container.last_state.as_ref()];
        states.into_iter().flatten().any(|state| state.running.is_some() || state.terminated.is_some())
    });
    if phase == Phase::Succeeded {
        return ConditionValue { reason: "PodCompleted".to_owned(), ..ConditionValue::yes() };
    }
    let incomplete: Vec<_> = inits.iter().filter(|init| !is_done(init)).map(|init| init.name.as_str()).collect();
    if has_begun || incomplete.is_empty() {
        return ConditionValue::yes();
    }
    let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
    ConditionValue::no("ContainersNotInitialized", message)
}

fn is_sidecar(pod: &Pod, init: &ContainerStatus) -> bool {
    pod.container(&init.name).is_some_and(|init| init.runs_always())
}

#[derive(Clone)]
struct ConditionValue {
    holds: bool,
    reason: String,
    message: String,
}

impl ConditionValue {
    fn yes() -> Self {
        Self { holds: true, reason: String::new(), message: String::new() }
    }

    fn no(reason: &str, message: String) -> Self {
        Self { holds: false, reason: reason.to_owned(), message }
    }
}

fn condition(facts: &Facts<'_>, kind: &str, value: ConditionValue) -> PodCondition {
    let status = if value.holds { "True" } else { "False" };
    // The transition time changes only when the status does (R-CND-7).
    let last = facts.last.and_then(|last: &PodStatus| last.conditions.as_ref());
    let last = last.and_then(|conditions| conditions.iter().find(|last| last.type_ == kind && last.status == status));
    let since = last.and_then(|last| last.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(value.reason).filter(|reason| !reason.is_empty()),
        message: Some(value.message).filter(|message| !message.is_empty()),
        last_transition_time: Some(since.unwrap_or(Time(facts.time_of_day))),
        ..PodCondition::default()
    }
}
