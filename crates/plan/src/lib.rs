//! Stanchion's decisions: the backend that a pod runs on, its next step, and its status. Every function is pure: this
//! crate reads no clock, does no I/O and starts no task.
//!
//! # Layout
//! - [`place()`](place::place): the backend that a pod runs on, and its moves while that is away.
//! - [`plan`]: the next [`Action`] for a pod, from its manifest, its [`View`] and its [`History`].
//! - [`observed`], [`view`]: the sandboxes and containers of a pod on all backends. [`history`]: the worker's memory of
//!   its own tries.
//! - `start`: containers to start in a sandbox. `update`: a new revision waits for its images while the old one runs.
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
mod start;
pub mod status;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod time;
mod update;
pub mod view;

use std::time::{Duration, Instant};

use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo, SandboxState, labels};

use history::History;
use image::ImageFor;
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
    if !history.is_startable(pod) && update::is_update(pod, running.is_some(), view) {
        return update::await_update(pod, wanted, view, history, now);
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
    let plan = plan.unwrap_or_else(|| start::Starts { pod, live, view, history, now }.plan()).wake(deadline);
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
    if let Some(action) = start::ensure_images(pod, &wanting, history, now) {
        return Plan::act(action);
    }
    if let Some(failure) = history.sandbox_failure().filter(|failure| failure.next_try > now) {
        return Plan::default().wake(Some(failure.next_try));
    }
    let attempt = view.sandboxes().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
    let started_at = outcome::started_at(pod, view, history).unwrap_or(since);
    Plan::act(Action::CreateSandbox { revision: pod.revision.clone(), attempt, started_at })
}

/// Returns whether a container runs, according to its runtime.
pub fn is_running(container: &ContainerInfo) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// Returns whether a sandbox was made from this revision of the pod.
pub fn is_of_revision(sandbox: &SandboxInfo, pod: &Pod) -> bool {
    sandbox.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
}
