//! `RestartAllContainers`: one container's end starts all of them again, in the same sandbox (R-RSP-4).

use std::time::Duration;

use stanchion_pod::{Container, Pod, RestartAction};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo};
use tokio::time::Instant;

use super::{
    Action, Plan,
    history::History,
    is_running, restart,
    stop::Stop,
    view::{Instance, View},
};

/// Whether a pod can come to it.
pub(crate) fn is_possible(pod: &Pod) -> bool {
    let mut rules = pod.all_containers().filter_map(|container| container.restart.as_ref()).flat_map(|own| &own.rules);
    rules.any(|rule| rule.action == RestartAction::Pod)
}

/// The container whose end asks for it.
pub(crate) fn trigger<'a>(pod: &Pod, live: &SandboxInfo, view: &'a View) -> Option<Instance<'a>> {
    let asks = |container: &Container| {
        let newest = view.newest(pod, &container.name).filter(|newest| newest.sandbox.id == live.id)?;
        let ContainerState::Exited { code, .. } = newest.container.state else { return None };
        (restart::rule(container, code) == Some(RestartAction::Pod)).then_some(newest)
    };
    pod.all_containers().find_map(asks)
}

/// Kills and removes all containers, the one that asks for it last: as long as it is there the work is not done,
/// whatever becomes of the agent. Nothing is left of them then but their number, and they start from the first.
pub(crate) fn next(pod: &Pod, live: &SandboxInfo, view: &View, history: &History, now: Instant) -> Option<Plan> {
    if !is_possible(pod) {
        return None;
    }
    let trigger = trigger(pod, live, view)?;
    if let Some(due) = restart::crash_due(Some(&trigger), history).filter(|due| *due > now) {
        return Some(Plan::default().wake(Some(due)));
    }
    let backend = view.home.clone();
    let running = view.containers(&live.id).filter(|container| is_running(container));
    let kill = |container: &ContainerInfo| {
        Stop::graceful(container, Some(live)).because("killing".to_owned(), Some(Duration::ZERO))
    };
    let stops: Vec<_> = running.map(kill).collect();
    if !stops.is_empty() {
        return Some(Plan::act(Action::StopContainers { backend, stops }));
    }
    let other = view.containers(&live.id).find(|container| container.id != trigger.container.id);
    let id = other.unwrap_or(trigger.container).id.clone();
    Some(Plan::act(Action::RemoveContainer { backend, id }))
}
