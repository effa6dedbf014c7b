//! Stanchion's decisions: the backend that a pod runs on, its next step, and its status. Every function is pure: this
//! crate reads no clock, does no I/O and starts no task.
//!
//! # Layout
//! - [`place()`](place::place): the backend that a pod runs on, and its moves while that is away.
//! - [`plan`]: the next [`Action`] for a pod, from its manifest, its [`View`] and its [`History`].
//! - [`observed`], [`view`]: the sandboxes and containers of a pod on all backends. [`history`]: the worker's memory of
//!   its own tries.
//! - [`image`]: images that the pod needs. [`resources`]: cgroup values for its requests and limits.
//! - [`restart`]: restart policy and back-off. [`outcome`]: whether the pod has ended. [`order`]: init containers
//!   first.
//! - [`restart_all`]: `RestartAllContainers`. [`lifecycle`]: hooks and probes. [`stop`]: stops. `garbage`: removals.
//! - [`reason`]: the words of statuses and events. [`status`]: the pod's status as Kubernetes writes it.
//! - [`mutant`]: lines that a test breaks on purpose.
//! - [`time`]: times as files and labels hold them, and back-off.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests need an origin of time"))]

mod garbage;
pub mod history;
pub mod image;
pub mod lifecycle;
pub mod mutant;
pub mod observed;
pub mod order;
pub mod outcome;
pub mod place;
pub mod reason;
pub mod resources;
pub mod restart;
pub mod restart_all;
pub mod status;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod time;
pub mod view;

use std::time::{Duration, Instant};

use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo, SandboxState, labels};

use history::{History, ImageState};
use image::ImageFor;
use lifecycle::HookState;
use mutant::Mutant;
use outcome::PodOutcome;
use stop::Stop;
use time::Stamp;
use view::View;

/// The next step for a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The step to perform now; `None` if the pod is as wanted, or waits for something.
    pub action: Option<Action>,
    /// Time to plan again even if nothing happens until then.
    pub wake_at: Option<Instant>,
}

/// One step. After it the worker observes the backend and makes a new plan.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields are named after what they hold: the pod's revision, a backend, an id")]
pub enum Action {
    /// Fetch these images, in the background.
    EnsureImages { revision: Revision, images: Vec<ImageFor> },
    /// Stop containers gracefully: all at once, but sidecars last and in reverse order.
    StopContainers { backend: String, stops: Vec<Stop> },
    /// Release a sandbox's network.
    StopSandbox { backend: String, id: SandboxId },
    /// Remove a sandbox with its containers.
    RemoveSandbox { backend: String, id: SandboxId },
    /// Remove a dead container.
    RemoveContainer { backend: String, id: ContainerId },
    /// Make the pod's sandbox.
    CreateSandbox { revision: Revision, attempt: u32, started_at: Stamp },
    /// Create and start a container of the pod.
    RunContainer(Run),
    /// Start a container that is created but not started, for example because an agent died in between.
    StartContainer { revision: Revision, container: String, id: ContainerId },
    /// Run the `postStart` hook of a container, in the background.
    RunHook { revision: Revision, container: String, id: ContainerId },
    /// Remove the pod's files; nothing of it is left in any runtime.
    CleanUp,
}

/// The container to run, with its attempt number and back-off.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Revision of the pod.
    pub revision: Revision,
    /// Name of the container.
    pub container: String,
    /// Attempt number; 0 for the first instance.
    pub attempt: u32,
    /// Sandbox that it runs in.
    pub sandbox: SandboxId,
    /// Back-off before the restart that follows this instance.
    pub backoff: Duration,
}

/// The pod's manifests: the wanted one, and the one that runs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The pod as the sources define it now; `None` if it is to be removed.
    pub pod: Option<&'a Pod>,
    /// The revision that keeps running until the wanted one can replace it, if its manifest is known.
    pub running: Option<RunningRevision<'a>>,
    /// Time at which the agent first saw this revision of the pod.
    pub since: Stamp,
    /// Time left to stop the pod, if the node shuts down.
    pub shutdown_in: Option<Duration>,
}

/// A revision and the backend that it was put on.
#[derive(Clone, Copy, Debug)]
pub struct RunningRevision<'a> {
    /// The pod of that revision.
    pub pod: &'a Pod,
    /// Name of the backend.
    pub backend: &'a str,
    /// `true` once it was stopped so that another revision can replace it.
    pub is_stopped: bool,
}

/// Decides the next step for a pod.
pub fn plan(wanted: Wanted<'_>, view: &View, history: &History, now: Instant) -> Plan {
    if let Some(left) = wanted.shutdown_in {
        return end(view, history, left);
    }
    let Some(pod) = wanted.pod else {
        return if mutant::is_on(Mutant::KeepsRemoved) { Plan::default() } else { remove(view) };
    };
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if !history.is_startable(pod) && is_update(pod, running.is_some(), view) {
        return await_update(pod, wanted, view, history, now);
    }
    if let Some(action) = remove_from_other_backends(view).filter(|_| !mutant::is_on(Mutant::StaysBehind)) {
        return Plan::act(action);
    }
    run(pod, view, history, wanted.since, now)
}

impl Plan {
    fn act(action: Action) -> Self {
        Self { action: Some(action), wake_at: None }
    }

    /// Adds a time to plan again; the earlier one counts.
    fn wake(mut self, at: Option<Instant>) -> Self {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
        self
    }
}

/// Plans to stop the whole pod within the time that is left (R-SHD-1).
fn end(view: &View, history: &History, left: Duration) -> Plan {
    for (backend, pod) in view.observed.backends() {
        let running = pod.containers.iter().filter(|container| is_running(container));
        if let Some(Action::StopContainers { backend, mut stops }) = stop::all(backend, running, &pod.sandboxes) {
            stops.iter_mut().for_each(|stop| stop.grace = stop.grace.min(left));
            return Plan::act(Action::StopContainers { backend, stops });
        }
        let mut sandboxes = pod.sandboxes.iter();
        if let Some(sandbox) = sandboxes.find(|it| it.state == SandboxState::Ready && !history.is_stopped(&it.id)) {
            return Plan::act(Action::StopSandbox { backend: backend.to_owned(), id: sandbox.id.clone() });
        }
    }
    Plan::default()
}

/// Plans the pod's removal: stops containers gracefully, then removes everything.
fn remove(view: &View) -> Plan {
    for (backend, pod) in view.observed.backends() {
        let running = pod.containers.iter().filter(|container| is_running(container));
        if let Some(stop) = stop::all(backend, running, &pod.sandboxes) {
            return Plan::act(stop);
        }
        if let Some(sandbox) = pod.sandboxes.first().filter(|_| !mutant::is_on(Mutant::LeavesSandboxes)) {
            return Plan::act(Action::RemoveSandbox { backend: backend.to_owned(), id: sandbox.id.clone() });
        }
        if let Some(container) = pod.containers.first() {
            return Plan::act(Action::RemoveContainer { backend: backend.to_owned(), id: container.id.clone() });
        }
    }
    Plan::act(Action::CleanUp)
}

/// Plans the removal from all other backends: a pod that moves is first stopped on its old one (I1).
fn remove_from_other_backends(view: &View) -> Option<Action> {
    let elsewhere = View { backend: view.backend.clone(), observed: view.observed.elsewhere(&view.backend) };
    match remove(&elsewhere).action? {
        Action::CleanUp => None,
        action => Some(action),
    }
}

/// Returns whether `pod` replaces another revision, or replaces itself on another backend. The other revision may run,
/// or have crashed or been lost.
fn is_update(pod: &Pod, has_other: bool, view: &View) -> bool {
    if view.sandboxes().any(|sandbox| !is_of_revision(sandbox, pod) && view.is_alive(sandbox)) {
        return true;
    }
    let has_begun =
        view.sandboxes().any(|sandbox| is_of_revision(sandbox, pod) && sandbox.state == SandboxState::Ready);
    !has_begun && (has_other || view.observed.elsewhere(&view.backend).containers().any(is_running))
}

/// Keeps the old revision running while the new one lacks images or objects: an update costs little downtime.
fn await_update(pod: &Pod, wanted: Wanted<'_>, view: &View, history: &History, now: Instant) -> Plan {
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if let Some(action) = ensure_images(pod, &pod.all_containers().collect::<Vec<_>>(), history, now) {
        return Plan::act(action);
    }
    let images: Vec<_> = pod.all_containers().flat_map(|container| history.images(pod, container)).collect();
    let next_try = images.iter().filter_map(ImageState::next_try).min();
    let waiting = Plan::default().wake(next_try);
    let Some(RunningRevision { pod: running, backend, is_stopped }) = running else { return waiting };
    let view = View { backend: backend.to_owned(), observed: view.observed.clone() };
    let is_up = view.sandboxes().any(|sandbox| {
        let is_ready = sandbox.state == SandboxState::Ready && !is_stopped;
        is_of_revision(sandbox, running) && (is_ready || view.is_alive(sandbox))
    });
    // A revision that was stopped or lost starts again only when the new one cannot start: the new one's images may be
    // present.
    let cannot_start = history.missing_object(pod).is_some() || images.iter().any(|image| image.failure().is_some());
    if !is_up && !cannot_start {
        return waiting;
    }
    match remove_from_other_backends(&view) {
        Some(action) => Plan::act(action),
        None => run(running, &view, history, wanted.since, now).wake(next_try),
    }
}

/// Plans to make the pod run as `pod` says.
fn run(pod: &Pod, view: &View, history: &History, since: Stamp, now: Instant) -> Plan {
    let backend = view.backend.clone();
    let outcome = PodOutcome::of(pod, view, history, since, now);
    let live = view
        .sandboxes()
        .filter(|sandbox| {
            is_of_revision(sandbox, pod) && sandbox.state == SandboxState::Ready && !outcome.is_terminal()
        })
        .rfind(|sandbox| !history.is_sandbox_to_restart(&sandbox.id));

    // Removals come before additions: containers outside the live sandbox are stopped first (I1).
    let is_another = |sandbox: &&SandboxInfo| live.is_none_or(|live| live.id != sandbox.id);
    for sandbox in view.sandboxes().filter(is_another).filter(|_| !mutant::is_on(Mutant::ForgetsLostSandboxes)) {
        let running = view.containers(&sandbox.id).filter(|container| is_running(container));
        if let Some(stop) = stop::all(&backend, running, std::slice::from_ref(sandbox)) {
            return Plan::act(stop);
        }
        if !history.is_stopped(&sandbox.id) {
            return Plan::act(Action::StopSandbox { backend, id: sandbox.id.clone() });
        }
    }

    if let Some(alone) = view.without_sandbox().next() {
        let stop = stop::all(&backend, std::iter::once(alone).filter(|alone| is_running(alone)), &[]);
        return Plan::act(stop.unwrap_or_else(|| Action::RemoveContainer { backend, id: alone.id.clone() }));
    }

    if outcome.is_terminal() {
        // The last sandbox stays, with its containers: they show how the pod ended.
        let last = view.sandboxes().rfind(|sandbox| is_of_revision(sandbox, pod));
        return Plan { action: last.and_then(|last| garbage::next(pod, last, view)), wake_at: None };
    }
    let deadline = outcome::deadline(pod, view, history, since);
    let Some(live) = live else {
        return new_sandbox(pod, view, history, since, now).wake(deadline);
    };
    let plan = restart_all::next(pod, live, view, history, now);
    let plan = plan.unwrap_or_else(|| starts(pod, live, view, history, now)).wake(deadline);
    if plan.action.is_some() {
        return plan;
    }
    Plan { action: garbage::next(pod, live, view), ..plan }
}

/// Plans a sandbox if any container must run: a pod that has completed gets none (R-SYNC-6).
fn new_sandbox(pod: &Pod, view: &View, history: &History, since: Stamp, now: Instant) -> Plan {
    let wants = |container: &&Container| {
        let newest = view.newest(pod, &container.name);
        restart::wants_start(pod, container, newest.as_ref(), history)
    };
    let mut wanting: Vec<_> = pod.containers.iter().filter(wants).collect();
    if wanting.is_empty() {
        return Plan::default();
    }
    // In a new sandbox all init containers run again (R-INIT-5). Their images are fetched first.
    wanting.splice(0..0, &pod.init_containers);
    if let Some(action) = ensure_images(pod, &wanting, history, now) {
        return Plan::act(action);
    }
    if let Some(failure) = history.sandbox_failure().filter(|failure| failure.next_try > now) {
        return Plan::default().wake(Some(failure.next_try));
    }
    let attempt = view.sandboxes().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
    let started_at = outcome::started_at(pod, view, history).unwrap_or(since);
    Plan::act(Action::CreateSandbox { revision: pod.revision.clone(), attempt, started_at })
}

/// Plans the next container to stop or to start in the live sandbox.
fn starts(pod: &Pod, live: &SandboxInfo, view: &View, history: &History, now: Instant) -> Plan {
    let newest = |container: &Container| view.newest(pod, &container.name).filter(|it| it.sandbox.id == live.id);
    if let Some(stop) = stops(pod, live, view, history) {
        return Plan::act(stop);
    }
    // A `postStart` hook delays the containers after its own (R-HOOK-1).
    for container in pod.all_containers().filter(|container| container.post_start.is_some()) {
        let Some(info) = newest(container).map(|it| it.container).filter(|it| is_running(it)) else { continue };
        match history.lifecycle(&info.id).hook {
            HookState::Pending | HookState::Begun { is_here: false } => {
                let (revision, container) = (pod.revision.clone(), container.name.clone());
                return Plan::act(Action::RunHook { revision, container, id: info.id.clone() });
            }
            HookState::Begun { is_here: true } => return Plan::default(),
            HookState::Done | HookState::Failed(_) => {}
        }
    }
    let mut plan = Plan::default();
    for container in order::next(pod, live, view, history) {
        let newest = view.newest(pod, &container.name);
        let due = restart::due(container, newest.as_ref(), history);
        if let Some(due) = due.filter(|due| *due > now) {
            let is_hook =
                |it: &view::Instance<'_>| matches!(history.lifecycle(&it.container.id).hook, HookState::Failed(_));
            let shows_error = history.start_failure(&container.name).is_some() || newest.as_ref().is_some_and(is_hook);
            plan = plan.wake(Some(if shows_error { restart::next_status_change(due, now) } else { due }));
            continue;
        }
        let created = newest.as_ref().filter(|it| it.sandbox.id == live.id).map(|it| it.container);
        if let Some(created) = created.filter(|it| is_created(it)) {
            let (revision, id) = (pod.revision.clone(), created.id.clone());
            return Plan::act(Action::StartContainer { revision, container: container.name.clone(), id });
        }
        if let Some(action) = ensure_images(pod, &[container], history, now) {
            return Plan::act(action);
        }
        let images: Vec<_> = history.images(pod, container).filter(|image| *image != ImageState::Ready).collect();
        let mut failures = images.iter().filter_map(ImageState::failure).peekable();
        if failures.peek().is_some() {
            let shown = failures.filter_map(|failure| failure.until_shown(now)).min();
            plan = plan.wake(images.iter().filter_map(ImageState::next_try).min()).wake(shown);
            continue;
        }
        // Later containers wait for this one, unless the pull of its image has failed (R-SYNC-4).
        if !images.is_empty() {
            return plan;
        }
        let last = newest.as_ref().map(|newest| newest.container);
        // Attempts count on after an instance that the runtime has forgotten (R-SYNC-13).
        let gone = history.attempt(&container.name);
        let attempt = last.map(|last| last.attempt).max(gone.map(|gone| gone.attempt)).map_or(0, |last| last + 1);
        let backoff = match (last, gone) {
            (None, Some(gone)) => gone.backoff,
            (last, _) => restart::next_backoff(last, history),
        };
        let (revision, sandbox) = (pod.revision.clone(), live.id.clone());
        let run = Run { revision, container: container.name.clone(), attempt, sandbox, backoff };
        return Plan::act(Action::RunContainer(run));
    }
    plan
}

/// Plans to remove a container in state `Unknown`, or to stop one that a user wants restarted, or whose hook or probe
/// has failed.
fn stops(pod: &Pod, live: &SandboxInfo, view: &View, history: &History) -> Option<Action> {
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

/// Plans to fetch those images of the containers that must be requested now, if there are any.
fn ensure_images(pod: &Pod, containers: &[&Container], history: &History, now: Instant) -> Option<Action> {
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

/// Returns whether a container runs, according to its runtime.
pub fn is_running(container: &ContainerInfo) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// Returns whether a sandbox was made from this revision of the pod.
pub fn is_of_revision(sandbox: &SandboxInfo, pod: &Pod) -> bool {
    sandbox.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
}
