//! The next container to stop or to start in the live sandbox.

use std::time::Instant;

use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo};

use crate::{
    Action, Plan, Run,
    history::{History, ImageState},
    image::{self, ImageFor},
    is_running,
    lifecycle::{self, HookState},
    order, restart,
    stop::Stop,
    view::{Instance, View},
};

/// Inputs of the next start.
#[derive(Clone, Copy)]
pub(super) struct Starts<'a> {
    pub pod: &'a Pod,
    /// The sandbox in which the containers run.
    pub live: &'a SandboxInfo,
    pub view: &'a View,
    pub history: &'a History,
    pub now: Instant,
}

/// Next step of a container that is to run.
enum Next {
    Act(Action),
    /// It waits until the earliest of these times; later containers do not wait for it.
    Wait([Option<Instant>; 2]),
    /// Later containers wait for it.
    Hold,
}

impl<'a> Starts<'a> {
    /// Plans the next container to stop or to start.
    pub fn plan(self) -> Plan {
        if let Some(stop) = self.stop() {
            return Plan::act(stop);
        }
        if let Some(plan) = self.hook() {
            return plan;
        }
        let mut plan = Plan::default();
        for container in order::next(self.pod, self.live, self.view, self.history) {
            match self.container(container) {
                Next::Act(action) => return Plan::act(action),
                Next::Wait(times) => plan = times.into_iter().fold(plan, Plan::wake),
                Next::Hold => return plan,
            }
        }
        plan
    }

    /// Plans to remove a container in state `Unknown`, or to stop one that a user wants restarted, or whose hook or
    /// probe has failed.
    fn stop(self) -> Option<Action> {
        let Self { pod, live, view, history, .. } = self;
        let backend = view.backend.clone();
        for container in pod.all_containers() {
            let Some(info) = view.newest(pod, &container.name).map(|it| it.container) else { continue };
            if info.sandbox != live.id {
                continue;
            }
            if info.state == ContainerState::Unknown {
                return Some(Action::RemoveContainer { backend, id: info.id.clone() });
            }
            let stop = Stop::graceful(info, Some(live));
            if is_running(info) && history.is_container_to_restart(&info.id) {
                return Some(Action::StopContainers { backend, stops: vec![stop] });
            }
            if let Some((message, grace)) = lifecycle::verdict(pod, container, info, history) {
                return Some(Action::StopContainers { backend, stops: vec![stop.because(message, grace)] });
            }
        }
        None
    }

    /// Plans the next `postStart` hook, which delays the containers after its own (R-HOOK-1); `None` if no hook is due
    /// or runs.
    fn hook(self) -> Option<Plan> {
        for container in self.pod.all_containers().filter(|container| container.post_start.is_some()) {
            let newest = self.view.newest(self.pod, &container.name).filter(|it| it.sandbox.id == self.live.id);
            let Some(info) = newest.map(|it| it.container).filter(|it| is_running(it)) else { continue };
            match self.history.lifecycle(&info.id).hook {
                HookState::Pending | HookState::Begun { is_here: false } => {
                    let (revision, container) = (self.pod.revision.clone(), container.name.clone());
                    return Some(Plan::act(Action::RunHook { revision, container, id: info.id.clone() }));
                }
                HookState::Begun { is_here: true } => return Some(Plan::default()),
                HookState::Done | HookState::Failed(_) => {}
            }
        }
        None
    }

    /// Returns the next step of a container that is to run.
    fn container(self, container: &'a Container) -> Next {
        let Self { pod, live, view, history, now } = self;
        let newest = view.newest(pod, &container.name);
        let due = restart::due(container, newest.as_ref(), history);
        if let Some(due) = due.filter(|due| *due > now) {
            let has_failed_hook =
                |it: &Instance<'_>| matches!(history.lifecycle(&it.container.id).hook, HookState::Failed(_));
            let shows_error =
                history.start_failure(&container.name).is_some() || newest.as_ref().is_some_and(has_failed_hook);
            return Next::Wait([Some(if shows_error { restart::next_status_change(due, now) } else { due }), None]);
        }
        let created = newest.as_ref().filter(|it| it.sandbox.id == live.id).map(|it| it.container);
        if let Some(created) = created.filter(|it| is_created(it)) {
            let (revision, id) = (pod.revision.clone(), created.id.clone());
            return Next::Act(Action::StartContainer { revision, container: container.name.clone(), id });
        }
        match self.images(container) {
            Some(next) => next,
            None => Next::Act(Action::RunContainer(self.run(container, newest.map(|newest| newest.container)))),
        }
    }

    /// Returns the step of a container whose images are not ready; `None` if they are.
    fn images(self, container: &Container) -> Option<Next> {
        if let Some(action) = ensure_images(self.pod, &[container], self.history, self.now) {
            return Some(Next::Act(action));
        }
        let states = self.history.images(self.pod, container);
        let images: Vec<_> = states.filter(|image| *image != ImageState::Ready).collect();
        let mut failures = images.iter().filter_map(ImageState::failure).peekable();
        if failures.peek().is_some() {
            let shown = failures.filter_map(|failure| failure.until_shown(self.now)).min();
            return Some(Next::Wait([images.iter().filter_map(ImageState::next_try).min(), shown]));
        }
        // Later containers wait for this one, unless the pull of its image has failed (R-SYNC-4).
        (!images.is_empty()).then_some(Next::Hold)
    }

    /// Returns the next instance of a container. Attempts count on after an instance that the runtime has forgotten
    /// (R-SYNC-13).
    fn run(self, container: &Container, last: Option<&ContainerInfo>) -> Run {
        let gone = self.history.attempt(&container.name);
        let attempt = last.map(|last| last.attempt).max(gone.map(|gone| gone.attempt)).map_or(0, |last| last + 1);
        let backoff = match (last, gone) {
            (None, Some(gone)) => gone.backoff,
            (last, _) => restart::next_backoff(last, self.history),
        };
        let (revision, sandbox) = (self.pod.revision.clone(), self.live.id.clone());
        Run { revision, container: container.name.clone(), attempt, sandbox, backoff }
    }
}

/// Plans to fetch those images of the containers that must be requested now, if there are any.
pub(super) fn ensure_images(pod: &Pod, containers: &[&Container], history: &History, now: Instant) -> Option<Action> {
    let mut images: Vec<ImageFor> = Vec::new();
    for need in containers.iter().flat_map(|container| image::needs(pod, container)) {
        let is_missing = match history.image(&pod.revision, &need.of) {
            ImageState::Unknown => true,
            ImageState::Failed(failure) => failure.next_try <= now,
            ImageState::Pulling(_) | ImageState::Ready => false,
        };
        if is_missing && !images.contains(&need.of) {
            images.push(need.of);
        }
    }
    (!images.is_empty()).then(|| Action::EnsureImages { revision: pod.revision.clone(), images })
}

fn is_created(container: &ContainerInfo) -> bool {
    container.state == ContainerState::Created
}
