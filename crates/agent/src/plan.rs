//! What to do next for one pod: the only place where desired and observed state meet. Pure; no I/O, no clock.
//!
//! # Layout
//! - [`plan`]: the decision, step by step.
//! - [`view`](View): what is observed of the pod. [`history`](History): what the agent remembers of its own tries.
//! - [`restart`]: restart policy and back-off.

pub(crate) mod history;
pub(crate) mod restart;
#[cfg(test)]
mod tests;
pub(crate) mod view;

use std::time::Duration;

use jiff::Timestamp;
use stanchion_pod::{Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, SandboxId, SandboxInfo, SandboxState, labels};

use history::{History, ImageState};
use view::{Instance, View};

/// The next step for a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// What to do now; nothing means that all is as it should be, or that something is being waited for.
    pub action: Option<Action>,
    /// When to plan again even if nothing happens until then.
    pub wake_at: Option<Timestamp>,
}

/// One step. After it the worker looks again and makes a new plan.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Have the images of the containers at these places; goes on in the background.
    EnsureImages { revision: Revision, containers: Vec<usize> },
    /// Stop containers gracefully, all at once.
    StopContainers { backend: String, containers: Vec<(ContainerId, Duration)> },
    /// Release a sandbox's network.
    StopSandbox { backend: String, id: SandboxId },
    /// Remove a sandbox with all that it has.
    RemoveSandbox { backend: String, id: SandboxId },
    /// Remove a dead container.
    RemoveContainer { backend: String, id: ContainerId },
    /// Make the pod's sandbox.
    CreateSandbox { revision: Revision, attempt: u32 },
    /// Create and start a container of the pod.
    RunContainer(Run),
    /// Start a container that was created and not started, as far as can be seen: by an agent that died meanwhile, say.
    StartContainer { revision: Revision, index: usize, id: ContainerId },
    /// Remove the pod's files; nothing of it is left in any runtime.
    CleanUp,
}

/// Which container to run, and how it stands among its lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    /// The revision of the pod that it belongs to.
    pub revision: Revision,
    /// Its place in the manifest.
    pub index: usize,
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
pub(crate) fn plan(wanted: Wanted<'_>, view: &View, history: &History, now: Timestamp) -> Plan {
    let Some(pod) = wanted.pod else { return remove(view) };
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if !history.is_startable(pod) && is_update(pod, running.is_some(), view) {
        return await_update(pod, running, view, history, now);
    }
    if let Some(action) = leave_other_backends(view) {
        return Plan::act(action);
    }
    run(pod, view, history, now)
}

impl Plan {
    fn act(action: Action) -> Self {
        Self { action: Some(action), wake_at: None }
    }

    /// The earlier of two moments to wake.
    fn wake(mut self, at: Option<Timestamp>) -> Self {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
        self
    }
}

/// Steps to the pod's end: containers gracefully, then all the rest.
fn remove(view: &View) -> Plan {
    for (backend, remains) in view.everywhere() {
        let running = graceful(remains.containers.iter().filter(|container| is_running(container)), &remains.sandboxes);
        if !running.is_empty() {
            return Plan::act(Action::StopContainers { backend: backend.to_owned(), containers: running });
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
fn await_update(pod: &Pod, running: Option<Running<'_>>, view: &View, history: &History, now: Timestamp) -> Plan {
    if let Some(action) = ensure_images(pod, 0..pod.containers.len(), history, now) {
        return Plan::act(action);
    }
    let images: Vec<_> = pod.containers.iter().map(|container| history.image(pod, container)).collect();
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
        None => run(running, &view, history, now).wake(next_try),
    }
}

/// Steps to the pod running as `pod` says.
fn run(pod: &Pod, view: &View, history: &History, now: Timestamp) -> Plan {
    let home = view.home.clone();
    let live = view
        .sandboxes()
        .filter(|sandbox| is_current(sandbox, pod) && sandbox.state == SandboxState::Ready)
        .rfind(|sandbox| !history.is_condemned(&sandbox.id));

    // Removals before additions: whatever runs outside the live sandbox is stopped first (I1).
    for sandbox in view.sandboxes().filter(|sandbox| live.is_none_or(|live| live.id != sandbox.id)) {
        let running = view.containers(&sandbox.id).filter(|container| is_running(container));
        let running = graceful(running, std::slice::from_ref(sandbox));
        if !running.is_empty() {
            return Plan::act(Action::StopContainers { backend: home, containers: running });
        }
        if !history.is_stopped(&sandbox.id) {
            return Plan::act(Action::StopSandbox { backend: home, id: sandbox.id.clone() });
        }
    }

    if let Some(stray) = view.strays().next() {
        return Plan::act(match is_running(stray) {
            true => Action::StopContainers { backend: home, containers: graceful(std::iter::once(stray), &[]) },
            false => Action::RemoveContainer { backend: home, id: stray.id.clone() },
        });
    }

    let starts = Starts::of(pod, view, history);
    let Some(live) = live else {
        return match starts.wanting.is_empty() {
            true => Plan::default(),
            false => new_sandbox(pod, view, history, &starts, now),
        };
    };
    let plan = starts.next(pod, live, view, history, now);
    if plan.action.is_some() {
        return plan;
    }
    match garbage(pod, live, view) {
        Some(action) => Plan { action: Some(action), ..plan },
        None => plan,
    }
}

fn new_sandbox(pod: &Pod, view: &View, history: &History, starts: &Starts, now: Timestamp) -> Plan {
    if let Some(action) = ensure_images(pod, starts.wanting.iter().copied(), history, now) {
        return Plan::act(action);
    }
    let image_of = |index: &usize| history.image(pod, &pod.containers[*index]);
    // One container with an image that cannot be had does not keep the others from running.
    if !starts.wanting.iter().any(|index| matches!(image_of(index), ImageState::Ready)) {
        return Plan::default().wake(starts.wanting.iter().filter_map(|index| image_of(index).next_try()).min());
    }
    if let Some(failure) = history.sandbox_failure().filter(|failure| failure.next_try > now) {
        return Plan::default().wake(Some(failure.next_try));
    }
    let attempt = view.sandboxes().map(|sandbox| sandbox.attempt + 1).max().unwrap_or(0);
    Plan::act(Action::CreateSandbox { revision: pod.revision.clone(), attempt })
}

/// Which containers are to be started, now or at a time.
struct Starts {
    /// Places of the containers that are to run and do not.
    wanting: Vec<usize>,
}

impl Starts {
    fn of(pod: &Pod, view: &View, history: &History) -> Self {
        let wants = |index: &usize| {
            let newest = view.newest(pod, &pod.containers[*index].name);
            restart::wants_start(pod, newest.as_ref(), history)
        };
        Self { wanting: (0..pod.containers.len()).filter(wants).collect() }
    }

    fn next(&self, pod: &Pod, live: &SandboxInfo, view: &View, history: &History, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        for (index, container) in pod.containers.iter().enumerate() {
            let newest = view.newest(pod, &container.name);
            if let Some(stop) = self.stop_of(newest.as_ref(), view, history) {
                return Plan::act(stop);
            }
            if !self.wanting.contains(&index) {
                continue;
            }
            let due = restart::due(container, newest.as_ref(), history);
            if let Some(due) = due.filter(|due| *due > now) {
                plan = plan.wake(Some(due));
                continue;
            }
            if let Some(created) = newest.as_ref().map(|it| it.container).filter(|it| is_created(it)) {
                let (revision, id) = (pod.revision.clone(), created.id.clone());
                return Plan::act(Action::StartContainer { revision, index, id });
            }
            if let Some(action) = ensure_images(pod, [index], history, now) {
                return Plan::act(action);
            }
            match history.image(pod, container) {
                ImageState::Ready => {}
                state => {
                    plan = plan.wake(state.next_try());
                    continue;
                }
            }
            let attempt = newest.as_ref().map_or(0, |newest| newest.container.attempt + 1);
            let backoff = restart::next_backoff(newest.as_ref().map(|newest| newest.container));
            let (revision, sandbox) = (pod.revision.clone(), live.id.clone());
            return Plan::act(Action::RunContainer(Run { revision, index, attempt, sandbox, backoff }));
        }
        plan
    }

    /// A container of which nothing is known, or that a user wants restarted, goes first.
    fn stop_of(&self, newest: Option<&Instance<'_>>, view: &View, history: &History) -> Option<Action> {
        let container = newest?.container;
        let backend = view.home.clone();
        match container.state {
            ContainerState::Unknown => Some(Action::RemoveContainer { backend, id: container.id.clone() }),
            ContainerState::Running { .. } if history.is_to_restart(&container.id) => {
                let containers = graceful(std::iter::once(container), std::slice::from_ref(newest?.sandbox));
                Some(Action::StopContainers { backend, containers })
            }
            _ => None,
        }
    }
}

/// The images that must be had before these containers can start, if any is to be asked for now.
fn ensure_images(
    pod: &Pod,
    indexes: impl IntoIterator<Item = usize>,
    history: &History,
    now: Timestamp,
) -> Option<Action> {
    let is_missing = |index: &usize| match history.image(pod, &pod.containers[*index]) {
        ImageState::Unknown => true,
        ImageState::Failed(failure) => failure.next_try <= now,
        ImageState::Pulling(_) | ImageState::Ready => false,
    };
    let containers: Vec<_> = indexes.into_iter().filter(is_missing).collect();
    (!containers.is_empty()).then(|| Action::EnsureImages { revision: pod.revision.clone(), containers })
}

/// What is left of earlier lives and no longer needed. Of each container the last dead instance is kept (R-GC-1).
fn garbage(pod: &Pod, live: &SandboxInfo, view: &View) -> Option<Action> {
    let backend = view.home.clone();
    let replaced = |container: &ContainerInfo| {
        pod.containers.iter().any(|wanted| {
            wanted.name == container.name && view.containers(&live.id).any(|newer| newer.name == container.name)
        })
    };
    for sandbox in view.sandboxes().filter(|sandbox| sandbox.id != live.id) {
        if !is_current(sandbox, pod) || view.containers(&sandbox.id).all(replaced) {
            return Some(Action::RemoveSandbox { backend, id: sandbox.id.clone() });
        }
    }
    for container in &pod.containers {
        let dead = view.containers(&live.id).filter(|instance| {
            instance.name == container.name && matches!(instance.state, ContainerState::Exited { .. })
        });
        let mut dead: Vec<_> = dead.collect();
        let newest_runs = view.newest(pod, &container.name).is_some_and(|newest| is_running(newest.container));
        dead.truncate(dead.len().saturating_sub(if newest_runs { 1 } else { 2 }));
        if let Some(oldest) = dead.first() {
            return Some(Action::RemoveContainer { backend, id: oldest.id.clone() });
        }
    }
    None
}

/// Containers with the grace that they were created with: their manifest may be gone.
fn graceful<'a>(
    containers: impl Iterator<Item = &'a ContainerInfo>,
    sandboxes: &[SandboxInfo],
) -> Vec<(ContainerId, Duration)> {
    let grace_of = |container: &ContainerInfo| {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox);
        let labels = [Some(&container.labels), sandbox.map(|sandbox| &sandbox.labels)];
        let seconds = labels.into_iter().flatten().find_map(|labels| labels.get(labels::GRACE_SECONDS)?.parse().ok());
        Duration::from_secs(seconds.unwrap_or(30))
    };
    containers.map(|container| (container.id.clone(), grace_of(container))).collect()
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
