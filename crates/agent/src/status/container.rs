//! The status of one container (R-CS).

use jiff::Timestamp;
use stanchion_pod::{
    Container,
    k8s_openapi::{
        api::core::v1::{
            ContainerState as WireState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
            ContainerStatus,
        },
        apimachinery::pkg::apis::meta::v1::Time,
    },
};
use stanchion_runtime::{ContainerInfo, ContainerState};

use super::Facts;
use crate::plan::{history::ImageState, restart, view::Instance};

pub(super) fn status(facts: &Facts<'_>, container: &Container) -> ContainerStatus {
    let mut instances = facts.view.instances(facts.pod, &container.name);
    let newest = instances.pop();
    let before = instances.pop().map(|instance| ended(facts, instance.container));
    let (state, last_state) = match &newest {
        Some(newest) => match waiting(facts, container, newest) {
            Some(waiting) => (waiting, Some(ended(facts, newest.container))),
            None => (now(facts, newest.container), before),
        },
        None => (not_yet(facts, container), None),
    };
    let running = state.running.is_some();
    let info = newest.map(|newest| newest.container);
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: info.and_then(|info| info.image_digest.as_ref()).map(ToString::to_string).unwrap_or_default(),
        container_id: info.map(|info| format!("{}://{}", facts.view.home, info.id)),
        ready: running,
        started: Some(running),
        restart_count: info.map_or(0, |info| i32::try_from(info.attempt).unwrap_or(i32::MAX)),
        state: Some(state),
        last_state,
        ..ContainerStatus::default()
    }
}

/// The waiting state of a container that ended and is to run again but cannot yet (R-CS-4).
fn waiting(facts: &Facts<'_>, container: &Container, newest: &Instance<'_>) -> Option<WireState> {
    if !matches!(newest.container.state, ContainerState::Exited { .. }) {
        return None;
    }
    if !restart::wants_start(facts.pod, Some(newest), facts.history) {
        return None;
    }
    if let Some(failure) = facts.history.start_failure(&container.name) {
        return Some(wait(failure.reason, Some(failure.message.clone())));
    }
    if let Some(waiting) = image_waiting(facts, container) {
        return Some(waiting);
    }
    let due = restart::crash_due(Some(newest), facts.history).filter(|due| *due > facts.now)?;
    let delay = restart::backoff(newest.container);
    let pod = facts.pod;
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(delay.as_secs()),
        container.name,
        pod.key.name,
        pod.key.namespace,
        pod.uid
    );
    debug_assert!(due > facts.now);
    Some(wait("CrashLoopBackOff", Some(message)))
}

/// The state of a container that has never been.
fn not_yet(facts: &Facts<'_>, container: &Container) -> WireState {
    if let Some((reason, message)) = &facts.obstacle {
        return wait(reason, Some(message.clone()));
    }
    if let Some(failure) = facts.history.start_failure(&container.name) {
        return wait(failure.reason, Some(failure.message.clone()));
    }
    if let Some(waiting) = image_waiting(facts, container) {
        return waiting;
    }
    let message = facts.history.sandbox_failure().map(|failure| failure.message.clone());
    wait("ContainerCreating", message)
}

/// The state of a container whose image could not be had (R-IMG-4). While it is tried again, the last failure stands.
fn image_waiting(facts: &Facts<'_>, container: &Container) -> Option<WireState> {
    let (state, image) = (facts.history.image(facts.pod, container), &container.image);
    let failure = state.failure()?;
    match (failure.reason, &state) {
        ("ErrImagePull", ImageState::Failed(_)) => {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", failure.message);
            Some(wait("ImagePullBackOff", Some(message)))
        }
        (reason, _) => Some(wait(reason, Some(failure.message.clone()))),
    }
}

fn now(facts: &Facts<'_>, info: &ContainerInfo) -> WireState {
    match &info.state {
        ContainerState::Created => wait("ContainerCreating", None),
        ContainerState::Running { started_at } => WireState {
            running: Some(ContainerStateRunning { started_at: Some(Time(started_at.unwrap_or(info.created_at))) }),
            ..WireState::default()
        },
        ContainerState::Exited { .. } => ended(facts, info),
        ContainerState::Unknown => wait("ContainerStatusUnknown", None),
    }
}

/// How a container ended (R-TERM-8).
fn ended(facts: &Facts<'_>, info: &ContainerInfo) -> WireState {
    let ContainerState::Exited { code, started_at, finished_at, oom_killed } = &info.state else {
        return WireState::default();
    };
    let (reason, message) = match code {
        None => ("ContainerStatusUnknown", Some("The container could not be located; how it ended is not known")),
        Some(_) if *oom_killed => ("OOMKilled", None),
        Some(0) => ("Completed", None),
        Some(_) => ("Error", None),
    };
    let time = |at: Option<Timestamp>| Some(Time(at?));
    WireState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{}://{}", facts.view.home, info.id)),
            exit_code: code.unwrap_or(137),
            reason: Some(reason.to_owned()),
            message: message.map(str::to_owned),
            started_at: time(started_at.or(Some(info.created_at))),
            finished_at: time(*finished_at),
            signal: None,
        }),
        ..WireState::default()
    }
}

fn wait(reason: &str, message: Option<String>) -> WireState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    WireState { waiting: Some(waiting), ..WireState::default() }
}

/// Whole seconds as Go prints a duration: `10s`, `2m40s`, `5m0s` (R-BCK-4).
fn go_duration(seconds: u64) -> String {
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_read_as_in_go() {
        assert_eq!([10, 160, 300].map(super::go_duration), ["10s", "2m40s", "5m0s"]);
    }
}
