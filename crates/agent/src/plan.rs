//! What to do next for one pod: the only place where desired and observed state meet. Pure; no I/O, no clock.
//!
//! # Layout
//! - [`plan`]: the decision, step by step.
//! - [`view`](View): what is observed of the pod. [`history`](History): what the agent remembers of its own tries.
//! - [`image`]: which images it needs.
//! - [`restart`]: restart policy and back-off. [`fate`]: whether the pod is over. [`order`]: init containers first.
//! - [`together`]: one container's end starts all anew. [`life`]: hooks and probes. [`stop`], [`garbage`]: what is stopped and what is removed.

pub(crate) mod fate;
mod garbage;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod life;
pub(crate) mod order;
pub(crate) mod restart;
pub(crate) mod stop;
#[cfg(test)]
mod tests;
pub(crate) mod together;
pub(crate) mod view;

use std::time::Duration;

use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo, SandboxState, labels};

use tokio::time::Instant;

use crate::clock::Stamp;
use fate::Fate;
use history::{History, ImageState};
use image::ImageFor;
use life::Hook;
use stop::Stop;
use view::View;

/// The next step for a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// What to do now; nothing means that all is as it should be, or that something is being waited for.
    pub action: Option<Action>,
    /// When to plan again even if nothing happens until then.
    pub wake_at: Option<Instant>,
}

/// One step. After it the worker looks again and makes a new plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Have these images; goes on in the background.
    EnsureImages { revision: Revision, images: Vec<ImageFor> },
    /// Stop containers gracefully, all at once but sidecars, which go last and in reverse.
    StopContainers { backend: String, stops: Vec<Stop> },
    /// Release a sandbox's network.
    StopSandbox { backend: String, id: SandboxId },
    /// Remove a sandbox with all that it has.
    RemoveSandbox { backend: String, id: SandboxId },
    /// Remove a dead container.
    RemoveContainer { backend: String, id: ContainerId },
    /// Make the pod's sandbox.
    CreateSandbox { revision: Revision, attempt: u32, started_at: Stamp },
    /// Create and start a container of the pod.
    RunContainer(Run),
    /// Start a container that was created and not started, as far as can be seen: by an agent that died meanwhile, say.
    StartContainer { revision: Revision, container: String, id: ContainerId },
    /// Run the `postStart` hook of a container; goes on in the background.
    RunHook { revision: Revision, container: String, id: ContainerId },
    /// Remove the pod's files; nothing of it is left in any runtime.
    CleanUp,
}

/// Which container to run, and how it stands among its lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// The revision of the pod that it belongs to.
    pub revision: Revision,
    /// Its name.
    pub container: String,
    /// How many lives it had before.
    pub attempt: u32,
    /// Where it runs.
    pub sandbox: SandboxId,
    /// How long the restart after it will wait.
    pub backoff: Duration,
}

/// Which manifest of the pod is in force, as the worker knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// What the sources say now; `None` says that the pod is to be gone.
    pub pod: Option<&'a Pod>,
    /// The revision that runs until the wanted one can replace it, where its manifest is known.
    pub running: Option<Running<'a>>,
    /// When the pod was first seen.
    pub since: Stamp,
    /// How long it may still take to end, if the node shuts down.
    pub ending: Option<Duration>,
}

/// A revision that was put somewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    pub pod: &'a Pod,
    pub backend: &'a str,
    /// Whether it was stopped already so that another could take its place.
    pub is_stopped: bool,
}

/// Decides the next step.
pub(crate) fn plan(wanted: Wanted<'_>, view: &View, history: &History, now: Instant) -> Plan {
    if let Some(left) = wanted.ending {
        return end(view, history, left);
    }
    let Some(pod) = wanted.pod else { return remove(view) };
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if !history.is_startable(pod) && is_update(pod, running.is_some(), view) {
        return await_update(pod, wanted, view, history, now);
    }
    if let Some(action) = leave_other_backends(view) {
        return Plan::act(action);
    }
    run(pod, view, history, wanted.since, now)
}

impl Plan {
    fn act(action: Action) -> Self {
        Self { action: Some(action), wake_at: None }
    }

    /// The earlier of two moments to wake.
    fn wake(mut self, at: Option<Instant>) -> Self {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
        self
    }
}

/// Steps to nothing of the pod running, within the time that is left (R-SHD-1).
fn end(view: &View, history: &History, left: Duration) -> Plan {
    for (backend, remains) in view.everywhere() {
        let running = remains.containers.iter().filter(|container| is_running(container));
        if let Some(Action::StopContainers { backend, mut stops }) = stop::all(backend, running, &remains.sandboxes) {
            stops.iter_mut().for_each(|stop| stop.grace = stop.grace.min(left));
            return Plan::act(Action::StopContainers { backend, stops });
        }
        let mut sandboxes = remains.sandboxes.iter();
        if let Some(sandbox) = sandboxes.find(|it| it.state == SandboxState::Ready && !history.is_stopped(&it.id)) {
            return Plan::act(Action::StopSandbox { backend: backend.to_owned(), id: sandbox.id.clone() });
        }
    }
    Plan::default()
}

/// Steps to the pod's end: containers gracefully, then all the rest.
fn remove(view: &View) -> Plan {
    for (backend, remains) in view.everywhere() {
        let running = remains.containers.iter().filter(|container| is_running(container));
        if let Some(stop) = stop::all(backend, running, &remains.sandboxes) {
            return Plan::act(stop);
        }
        if let Some(sandbox) = remains.sandboxes.first() {
            return Plan::act(Action::RemoveSandbox { backend: backend.to_owned(), id: sandbox.id.clone() });
        }
        if let Some(container) = remains.containers.first() {
            return Plan::act(Action::RemoveContainer { backend: backend.to_owned(), id: container.id.clone() });
        }
    }
    Plan::act(Action::CleanUp)
}

/// A pod that is placed elsewhere now is first stopped where it was (I1).
fn leave_other_backends(view: &View) -> Option<Action> {
    let elsewhere = View { home: view.home.clone(), remains: view.elsewhere() };
    match remove(&elsewhere).action? {
        Action::CleanUp => None,
        action => Some(action),
    }
}

/// Whether `pod` is to take the place of another revision that runs, or ran until it crashed or was lost; or its own
/// place on another backend.
fn is_update(pod: &Pod, has_other: bool, view: &View) -> bool {
    if view.sandboxes().any(|sandbox| !is_current(sandbox, pod) && view.is_alive(sandbox)) {
        return true;
    }
    let has_begun = view.sandboxes().any(|sandbox| is_current(sandbox, pod) && sandbox.state == SandboxState::Ready);
    let mut elsewhere = view.everywhere().filter(|(backend, _)| *backend != view.home);
    !has_begun && (has_other || elsewhere.any(|(_, remains)| remains.containers.iter().any(is_running)))
}

/// Keeps the old revision standing while the new one lacks images or objects (design: a change costs little downtime).
fn await_update(pod: &Pod, wanted: Wanted<'_>, view: &View, history: &History, now: Instant) -> Plan {
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if let Some(action) = ensure_images(pod, &pod.all_containers().collect::<Vec<_>>(), history, now) {
        return Plan::act(action);
    }
    let images: Vec<_> = pod.all_containers().flat_map(|container| history.images(pod, container)).collect();
    let next_try = images.iter().filter_map(ImageState::next_try).min();
    let waiting = Plan::default().wake(next_try);
    let Some(Running { pod: running, backend, is_stopped }) = running else { return waiting };
    let view = View { home: backend.to_owned(), remains: view.remains.clone() };
    let stands = view.sandboxes().any(|sandbox| {
        let is_ready = sandbox.state == SandboxState::Ready && !is_stopped;
        is_current(sandbox, running) && (is_ready || view.is_alive(sandbox))
    });
    // What was stopped or lost comes back only when the new revision is known not to start: it may be here already.
    let cannot_start = history.lacking(pod).is_some() || images.iter().any(|image| image.failure().is_some());
    if !stands && !cannot_start {
        return waiting;
    }
    match leave_other_backends(&view) {
        Some(action) => Plan::act(action),
        None => run(running, &view, history, wanted.since, now).wake(next_try),
    }
}

/// Steps to the pod running as `pod` says.
fn run(pod: &Pod, view: &View, history: &History, since: Stamp, now: Instant) -> Plan {
    let home = view.home.clone();
    let fate = Fate::of(pod, view, history, since, now);
    let live = view
        .sandboxes()
        .filter(|sandbox| is_current(sandbox, pod) && sandbox.state == SandboxState::Ready && !fate.is_over())
        .rfind(|sandbox| !history.is_condemned(&sandbox.id));

    // Removals before additions: whatever runs outside the live sandbox is stopped first (I1).
    for sandbox in view.sandboxes().filter(|sandbox| live.is_none_or(|live| live.id != sandbox.id)) {
        let running = view.containers(&sandbox.id).filter(|container| is_running(container));
        if let Some(stop) = stop::all(&home, running, std::slice::from_ref(sandbox)) {
            return Plan::act(stop);
        }
        if !history.is_stopped(&sandbox.id) {
            return Plan::act(Action::StopSandbox { backend: home, id: sandbox.id.clone() });
        }
    }

    if let Some(stray) = view.strays().next() {
        let stop = stop::all(&home, std::iter::once(stray).filter(|stray| is_running(stray)), &[]);
        return Plan::act(stop.unwrap_or_else(|| Action::RemoveContainer { backend: home, id: stray.id.clone() }));
    }

    if fate.is_over() {
        // Its remains say how it ended.
        let last = view.sandboxes().rfind(|sandbox| is_current(sandbox, pod));
        return Plan { action: last.and_then(|last| garbage::next(pod, last, view)), wake_at: None };
    }
    let deadline = fate::deadline(pod, view, history, since);
    let Some(live) = live else {
        return new_sandbox(pod, view, history, since, now).wake(deadline);
    };
    let plan = together::next(pod, live, view, history, now);
    let plan = plan.unwrap_or_else(|| starts(pod, live, view, history, now)).wake(deadline);
    if plan.action.is_some() {
        return plan;
    }
    Plan { action: garbage::next(pod, live, view), ..plan }
}

/// A sandbox for the containers that are to run, if there are any: it is not made merely to do again what is done
/// (R-SYNC-6).
fn new_sandbox(pod: &Pod, view: &View, history: &History, since: Stamp, now: Instant) -> Plan {
    let wants = |container: &&Container| {
        let newest = view.newest(pod, &container.name);
        restart::wants_start(pod, container, newest.as_ref(), history)
    };
    let mut wanting: Vec<_> = pod.containers.iter().filter(wants).collect();
    if wanting.is_empty() {
        return Plan::default();
    }
    // In a new sandbox all of them run again (R-INIT-5). Their images are fetched while it is made.
    wanting.splice(0..0, &pod.init_containers);
    if let Some(action) = ensure_images(pod, &wanting, history, now) {
        return Plan::act(action);
    }
    if let Some(failure) = history.sandbox_failure().filter(|failure| failure.next_try > now) {
        return Plan::default().wake(Some(failure.next_try));
    }
    let attempt = view.sandboxes().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
    let started_at = fate::started_at(pod, view, history).unwrap_or(since);
    Plan::act(Action::CreateSandbox { revision: pod.revision.clone(), attempt, started_at })
}

/// The next container to stop or to start in the live sandbox.
fn starts(pod: &Pod, live: &SandboxInfo, view: &View, history: &History, now: Instant) -> Plan {
    let newest = |container: &Container| view.newest(pod, &container.name).filter(|it| it.sandbox.id == live.id);
    if let Some(stop) = stops(pod, live, view, history) {
        return Plan::act(stop);
    }
    // A hook keeps the containers after its own from being started (R-HOOK-1).
    for container in pod.all_containers().filter(|container| container.post_start.is_some()) {
        let Some(info) = newest(container).map(|it| it.container).filter(|it| is_running(it)) else { continue };
        match history.life(&info.id).hook {
            Hook::Pending | Hook::Begun { is_here: false } => {
                let (revision, container) = (pod.revision.clone(), container.name.clone());
                return Plan::act(Action::RunHook { revision, container, id: info.id.clone() });
            }
            Hook::Begun { is_here: true } => return Plan::default(),
            Hook::Done | Hook::Failed(_) => {}
        }
    }
    let mut plan = Plan::default();
    for container in order::next(pod, live, view, history) {
        let newest = view.newest(pod, &container.name);
        let due = restart::due(container, newest.as_ref(), history);
        if let Some(due) = due.filter(|due| *due > now) {
            let is_hook = |it: &view::Instance<'_>| matches!(history.life(&it.container.id).hook, Hook::Failed(_));
            let is_told = history.start_failure(&container.name).is_some() || newest.as_ref().is_some_and(is_hook);
            plan = plan.wake(Some(if is_told { restart::next_shown(due, now) } else { due }));
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
        // Those after it keep their order, unless an image cannot be had (R-SYNC-4).
        if !images.is_empty() {
            return plan;
        }
        let last = newest.as_ref().map(|newest| newest.container);
        // What the runtime has forgotten counts all the same (R-SYNC-13).
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

/// A container of which nothing is known goes; one that a user wants restarted, or that a hook or probe has given up, is
/// stopped.
fn stops(pod: &Pod, live: &SandboxInfo, view: &View, history: &History) -> Option<Action> {
    let backend = view.home.clone();
    for container in pod.all_containers() {
        let Some(info) = view.newest(pod, &container.name).map(|it| it.container) else { continue };
        if info.sandbox != live.id {
            continue;
        }
        if info.state == ContainerState::Unknown {
            return Some(Action::RemoveContainer { backend, id: info.id.clone() });
        }
        let stop = Stop::graceful(info, Some(live));
        if is_running(info) && history.is_to_restart(&info.id) {
            return Some(Action::StopContainers { backend, stops: vec![stop] });
        }
        if let Some((message, grace)) = life::verdict(pod, container, info, history) {
            return Some(Action::StopContainers { backend, stops: vec![stop.because(message, grace)] });
        }
    }
    None
}

/// The images that must be had before these containers can start, if any is to be asked for now.
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

pub(crate) fn is_running(container: &ContainerInfo) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

/// Whether a sandbox was made from this revision of the pod.
pub(crate) fn is_current(sandbox: &SandboxInfo, pod: &Pod) -> bool {
    sandbox.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
}
