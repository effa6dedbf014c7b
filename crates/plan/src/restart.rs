//! Restart policy and back-off of containers.

use std::time::{Duration, Instant};

use stanchion_pod::{Container, Pod, RestartAction, RestartPolicy};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxState, labels};

use super::{
    history::History,
    mutant::{self, Mutant},
    view::Instance,
};
use crate::time::{Backoff, after};

/// Back-off from the second exit on; the first restart is immediate (R-BCK-1).
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(300) };
/// Run time after which the back-off starts over (R-BCK-2).
const BACKOFF_RESET: Duration = Duration::from_secs(600);

/// Returns whether a container must be started: it does not run, and its restart policy or a user wants it to (R-RSP-1,
/// R-RSP-3, R-SYNC-6).
pub fn wants_start(pod: &Pod, container: &Container, newest: Option<&Instance<'_>>, history: &History) -> bool {
    let Some(newest) = newest else { return true };
    if is_requested(newest, history) {
        return true;
    }
    match &newest.container.state {
        ContainerState::Running { .. } => false,
        ContainerState::Created | ContainerState::Unknown => true,
        ContainerState::Exited { code, .. } => restarts(pod, container, *code),
    }
}

/// Returns whether a user requested a restart of this instance.
pub fn is_requested(newest: &Instance<'_>, history: &History) -> bool {
    history.is_container_to_restart(&newest.container.id) || history.is_sandbox_to_restart(&newest.sandbox.id)
}

/// Returns whether a container with this exit code is restarted. Its own rules and policy come before the pod's
/// (R-RSP-1). An init container that succeeded is never restarted (R-INIT-1), a sidecar always (R-RSP-2).
pub fn restarts(pod: &Pod, container: &Container, code: Option<i32>) -> bool {
    let is_init = pod.init_containers.iter().any(|init| init.name == container.name);
    if is_init && !container.runs_always() && code == Some(0) {
        return false;
    }
    if rule(container, code).is_some() || mutant::is_on(Mutant::RestartsAlways) {
        return true;
    }
    match container.restart.as_ref().map_or(pod.restart_policy, |own| own.policy) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != Some(0),
        RestartPolicy::Never => false,
    }
}

/// Returns the action of the first restart rule that matches this exit code (R-RSP-1).
pub fn rule(container: &Container, code: Option<i32>) -> Option<RestartAction> {
    let mut rules = container.restart.iter().flat_map(|own| &own.rules);
    rules.find(|rule| code.is_some_and(|code| rule.matches(code))).map(|rule| rule.action)
}

/// Returns the time from which a container may start; `None` means at once.
pub fn due(container: &Container, newest: Option<&Instance<'_>>, history: &History) -> Option<Instant> {
    let failed = history.start_failure(&container.name).map(|failure| failure.next_try);
    [crash_due(newest, history), failed].into_iter().flatten().max()
}

/// Time before a restart during which the status of a container that could not be started shows the back-off. Until
/// then it shows the failure.
const BACKOFF_SHOWN: Duration = Duration::from_secs(1);

/// Returns whether a restart is so near that the status shows the back-off rather than the failure.
pub fn shows_backoff(due: Instant, now: Instant) -> bool {
    due <= after(now, BACKOFF_SHOWN)
}

/// Returns the time at which the status of a waiting container changes next.
pub fn next_status_change(due: Instant, now: Instant) -> Instant {
    if shows_backoff(due, now) {
        due
    } else {
        after(now, due.saturating_duration_since(now).saturating_sub(BACKOFF_SHOWN))
    }
}

/// Returns the end of the back-off after the container's latest exit.
pub fn crash_due(newest: Option<&Instance<'_>>, history: &History) -> Option<Instant> {
    let newest = newest.filter(|_| !mutant::is_on(Mutant::RestartsAtOnce))?;
    // A container that was lost with its sandbox did not crash.
    if is_requested(newest, history) || newest.sandbox.state != SandboxState::Ready {
        return None;
    }
    let ContainerState::Exited { finished_at: Some(finished), .. } = newest.container.state else { return None };
    let backoff = Some(backoff(newest.container, history)).filter(|backoff| !backoff.is_zero())?;
    Some(after(history.instant_of(finished.into())?, backoff))
}

/// Returns the back-off before the restart of this instance, from the instance's label (R-BCK-1, R-BCK-2).
pub fn backoff(container: &ContainerInfo, history: &History) -> Duration {
    let labelled = container.labels.get(labels::BACKOFF_SECONDS).and_then(|seconds| seconds.parse().ok());
    match container.state {
        ContainerState::Exited { finished_at: Some(finished), .. }
            if history.span(container.created_at, finished) > BACKOFF_RESET =>
        {
            Duration::ZERO
        }
        _ => Duration::from_secs(labelled.unwrap_or(0)).min(BACKOFF.longest),
    }
}

/// Returns the back-off for the label of the instance after `last`: twice that of `last`, from 10 s to 5 min. The first
/// instance gets zero.
pub fn next_backoff(last: Option<&ContainerInfo>, history: &History) -> Duration {
    match last.map(|last| backoff(last, history)) {
        None => Duration::ZERO,
        Some(last) => BACKOFF.after(last),
    }
}
