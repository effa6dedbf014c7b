//! The conditions of a pod (R-CND), and those that Stanchion adds.

use stanchion_pod::k8s_openapi::{
    api::core::v1::{ContainerStatus, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::Facts;

/// The newest manifest is in force. False while a broken edit or a missing image keeps the last good one running.
const MANIFEST_IN_FORCE: &str = "stanchion.dev/ManifestInForce";

pub(super) fn conditions(
    facts: &Facts<'_>,
    phase: &str,
    has_sandbox: bool,
    containers: &[ContainerStatus],
) -> Vec<PodCondition> {
    let unready: Vec<_> = containers.iter().filter(|it| !it.ready).map(|it| it.name.as_str()).collect();
    let ready = match phase {
        "Succeeded" => Verdict::no("PodCompleted", String::new()),
        "Failed" => Verdict::no("PodFailed", String::new()),
        _ if unready.is_empty() => Verdict::yes(),
        _ => Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let verdicts = [
        ("PodReadyToStartContainers", if has_sandbox { Verdict::yes() } else { Verdict::no("", String::new()) }),
        ("Initialized", Verdict::yes()),
        ("Ready", ready.clone()),
        ("ContainersReady", ready),
        ("PodScheduled", Verdict::yes()),
    ];
    let stale =
        facts.stale.as_ref().map(|(reason, message)| (MANIFEST_IN_FORCE, Verdict::no(reason, message.to_string())));
    verdicts.into_iter().chain(stale).map(|(kind, verdict)| condition(facts, kind, verdict)).collect()
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
    fn yes() -> Self {
        Self { holds: true, reason: String::new(), message: String::new() }
    }

    fn no(reason: &str, message: String) -> Self {
        Self { holds: false, reason: reason.to_owned(), message }
    }
}

fn condition(facts: &Facts<'_>, kind: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    // The time moves only when the status does (R-CND-7).
    let last = facts.last.and_then(|last: &PodStatus| last.conditions.as_ref());
    let last = last.and_then(|conditions| conditions.iter().find(|last| last.type_ == kind && last.status == status));
    let since = last.and_then(|last| last.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(verdict.reason).filter(|reason| !reason.is_empty()),
        message: Some(verdict.message).filter(|message| !message.is_empty()),
        last_transition_time: Some(since.unwrap_or(Time(facts.now))),
        ..PodCondition::default()
    }
}
