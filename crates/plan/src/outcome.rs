//! Outcome of a pod: whether it has ended by itself (R-PH-1, R-PH-4, R-PH-6, R-ADL-1).

use std::time::Instant;

use stanchion_pod::Pod;
use stanchion_runtime::{ContainerState, SandboxInfo, labels};

use super::{history::History, is_of_revision, restart, view::View};
use crate::time::{Stamp, after};

/// Outcome of a pod. All but `Active` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodOutcome {
    /// The pod runs, or is about to run.
    Active,
    /// All containers have exited with code 0.
    Succeeded,
    /// A container has failed, and no container is to be started again.
    Failed,
    /// The pod is past its `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// The pod has exceeded a disk limit.
    Evicted,
    /// The node shuts down.
    ShutDown,
}

impl PodOutcome {
    /// Determines the outcome of a pod. `since` is the pod's start time if no sandbox has one. Existing containers
    /// decide first, so that the outcome lasts, and the next agent comes to the same.
    pub fn of(pod: &Pod, view: &View, history: &History, since: Stamp, now: Instant) -> Self {
        let (outcome, ended_at) = ended(pod, view, history).unwrap_or((Self::Active, None));
        match deadline(pod, view, history, since).filter(|deadline| *deadline <= now) {
            Some(deadline) if outcome == Self::Active || ended_at > Some(deadline) => Self::DeadlineExceeded,
            _ if outcome == Self::Active && history.evicted(pod).is_some() => Self::Evicted,
            _ if outcome == Self::Active && history.is_shutting_down() => Self::ShutDown,
            _ => outcome,
        }
    }

    /// Returns whether the pod has ended: no container of it is to run any more.
    pub fn is_terminal(self) -> bool {
        self != Self::Active
    }
}

/// Returns the time at which the pod exceeds its `activeDeadlineSeconds`.
pub fn deadline(pod: &Pod, view: &View, history: &History, since: Stamp) -> Option<Instant> {
    let began = started_at(pod, view, history).unwrap_or(since);
    Some(after(history.instant_of(began)?, pod.active_deadline?))
}

/// Returns the pod's start time from its sandboxes: each inherits it from the one before (R-ADL-2).
pub fn started_at(pod: &Pod, view: &View, history: &History) -> Option<Stamp> {
    // A restart that a user requested begins the time anew.
    let sandboxes = view.sandboxes().filter(|it| is_of_revision(it, pod) && !history.is_sandbox_to_restart(&it.id));
    sandboxes.map(began).min_by_key(|began| (history.instant_of(*began), began.wall))
}

/// Returns the pod's start time from the label of this sandbox, or else its creation time.
pub fn began(sandbox: &SandboxInfo) -> Stamp {
    let labelled = sandbox.labels.get(labels::STARTED_AT).and_then(|at| at.parse().ok());
    labelled.unwrap_or(sandbox.created_at.into())
}

/// Returns the outcome and end time of a pod whose containers have ended for good.
fn ended(pod: &Pod, view: &View, history: &History) -> Option<(PodOutcome, Option<Instant>)> {
    let end = |container| {
        let newest = view.newest(pod, container)?;
        match newest.container.state {
            ContainerState::Exited { code, finished_at, .. } => {
                Some((newest, code, finished_at.and_then(|at| history.instant_of(at.into()))))
            }
            _ => None,
        }
    };
    for container in pod.init_containers.iter().filter(|init| !init.runs_always()) {
        if let Some((newest, code, at)) = end(&container.name)
            && code != Some(0)
            && !restart::wants_start(pod, container, Some(&newest), history)
        {
            return Some((PodOutcome::Failed, at));
        }
    }
    let (mut outcome, mut last) = (PodOutcome::Succeeded, None);
    for container in &pod.containers {
        let (newest, code, at) = end(&container.name)?;
        if restart::wants_start(pod, container, Some(&newest), history) {
            return None;
        }
        last = last.max(at);
        if code != Some(0) {
            outcome = PodOutcome::Failed;
        }
    }
    Some((outcome, last))
}
