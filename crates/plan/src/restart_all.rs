//! `RestartAllContainers`: the exit of one container restarts all of them, in the same sandbox (R-RSP-4).

use std::time::{Duration, Instant};

use stanchion_pod::{Container, Pod, RestartAction};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo};

use super::{
    Action, Plan,
    history::History,
    is_running, restart,
    stop::Stop,
    view::{Instance, View},
};

/// Returns whether a pod has a restart rule with this action.
pub fn is_possible(pod: &Pod) -> bool {
    let mut rules = pod.all_containers().filter_map(|container| container.restart.as_ref()).flat_map(|own| &own.rules);
    rules.any(|rule| rule.action == RestartAction::Pod)
}

/// Returns the exited container that triggers the restart.
pub fn trigger<'a>(pod: &Pod, live: &SandboxInfo, view: &'a View) -> Option<Instance<'a>> {
    let asks = |container: &Container| {
        let newest = view.newest(pod, &container.name).filter(|newest| newest.sandbox.id == live.id)?;
        let ContainerState::Exited { code, .. } = newest.container.state else { return None };
        (restart::rule(container, code) == Some(RestartAction::Pod)).then_some(newest)
    };
    pod.all_containers().find_map(asks)
}

/// Plans to kill and remove all containers, the trigger last: its existence tells a new agent that the work is not
/// done. Then only the attempt numbers are left, and the containers start in order again.
pub fn next(pod: &Pod, live: &SandboxInfo, view: &View, history: &History, now: Instant) -> Option<Plan> {
    if !is_possible(pod) {
        return None;
    }
    let trigger = trigger(pod, live, view)?;
    if let Some(due) = restart::crash_due(Some(&trigger), history).filter(|due| *due > now) {
        return Some(Plan::default().wake(Some(due)));
    }
    let backend = view.backend.clone();
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
