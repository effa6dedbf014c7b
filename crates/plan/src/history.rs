//! The worker's memory of its own tries. Losing it costs at most an early retry.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, ErrorKind, SandboxId, SandboxInfo, labels};

use super::{
    image::{self, ImageFor, Need},
    lifecycle::LifecycleState,
    outcome,
};
use crate::{
    observed::Observed,
    reason::Reason,
    time::{Backoff, Stamp, after, until},
};

/// Waits after failures that will not pass by themselves (R-IMG-4, R-LOOP-3).
const LONG_BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(300) };
/// Waits after failures that may pass at any moment.
const SHORT_BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(10) };

/// Time for which a status shows a failure before it shows the back-off, as a kubelet does between two syncs.
const FAILURE_SHOWN: Duration = Duration::from_secs(1);

/// A worker's memory of its tries for one pod.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// States of images, by the revision and its use of the image.
    images: HashMap<(Revision, ImageFor), ImageState>,
    /// Last failures to start, by container name.
    starts: HashMap<String, Failure>,
    /// Created containers that could not be started.
    unstarted: HashMap<ContainerId, Unstarted>,
    /// Last failure to create the sandbox.
    sandbox: Option<Failure>,
    /// Revision that lacks an object, with the message.
    missing: Option<(Revision, String)>,
    /// Evicted revision, with the message.
    evicted: Option<(Revision, String)>,
    is_shutting_down: bool,
    /// Sandboxes whose network has been released.
    stopped: HashSet<SandboxId>,
    sandboxes_to_restart: HashSet<SandboxId>,
    containers_to_restart: HashSet<ContainerId>,
    lifecycles: HashMap<ContainerId, LifecycleState>,
    /// Termination messages.
    messages: HashMap<ContainerId, String>,
    /// Latest known instances, by container name.
    attempts: HashMap<String, Attempt>,
    /// Last instances that were removed with their sandbox, by container name.
    last_exits: HashMap<String, ContainerInfo>,
    /// Containers whose wait for a restart has been announced.
    waiting: HashSet<ContainerId>,
    /// Failed pulls whose wait has been announced, with the time of the failure.
    waiting_for_image: HashMap<(Revision, ImageFor), Instant>,
    /// Containers whose image was pulled for their next start.
    pulled: HashSet<(Revision, String)>,
    /// Monotonic time of each time that a runtime reports.
    instants: HashMap<Stamp, Instant>,
}

/// Latest known instance of a container, even if the runtime has forgotten it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// Attempt number; 0 for the first instance.
    pub attempt: u32,
    /// Back-off to label the next instance with.
    pub backoff: Duration,
}

/// Failed start of a created container: error and time.
#[derive(Clone, Debug, PartialEq)]
pub struct Unstarted {
    /// The runtime's error.
    pub message: String,
    /// Time of the failed start.
    pub at: Timestamp,
}

/// State of an image, for one use in one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ImageState {
    /// Not requested yet.
    #[default]
    Unknown,
    /// Being fetched. From the second try on, it holds the last failure.
    Pulling(Option<Failure>),
    /// Present on the backend.
    Ready,
    /// Not available: the last try failed.
    Failed(Failure),
}

impl ImageState {
    /// Returns the failure of the last try.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) | Self::Pulling(Some(failure)) => Some(failure),
            _ => None,
        }
    }

    /// Returns when to try again.
    pub fn next_try(&self) -> Option<Instant> {
        match self {
            Self::Failed(failure) => Some(failure.next_try),
            _ => None,
        }
    }
}

/// A failed try.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Reason for the container status, e.g. `ErrImagePull`.
    pub reason: Reason,
    /// Message of the error.
    pub message: String,
    /// Time of the failure.
    pub at: Instant,
    /// Time of the next try.
    pub next_try: Instant,
    delay: Duration,
}

impl Failure {
    /// Makes a failure of `kind` at `now`, after `last`. `retry_after` is the wait that the registry or runtime asked
    /// for.
    pub fn after(
        last: Option<&Self>,
        reason: Reason,
        message: String,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Self {
        let backoff = match kind {
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Cancelled
            | ErrorKind::Conflict
            | ErrorKind::AlreadyExists => SHORT_BACKOFF,
            _ => LONG_BACKOFF,
        };
        let delay = backoff.after(last.map_or(Duration::ZERO, |last| last.delay));
        let next_try = after(now, retry_after.map_or(delay, |asked| asked.max(delay)));
        Self { reason, message, at: now, next_try, delay }
    }

    /// Returns whether the status still shows the failure itself, not yet the back-off.
    pub fn is_new(&self, now: Instant) -> bool {
        self.until_shown(now).is_some()
    }

    /// Returns the time until which the status shows the failure; `None` once it shows the back-off.
    pub fn until_shown(&self, now: Instant) -> Option<Instant> {
        Some(after(self.at, FAILURE_SHOWN)).filter(|at| *at > now)
    }

    /// Makes a failure at `now` without a wait: something else decides when to try again.
    pub fn without_wait(reason: Reason, message: String, now: Instant) -> Self {
        Self { reason, message, at: now, next_try: now, delay: Duration::ZERO }
    }
}

impl History {
    /// Stores the `Instant` of every time that a runtime reports, and of the times in `own`, which the agent recorded
    /// itself. `instant_of` converts each time once, when it first appears. Forgets times that no runtime reports any
    /// more.
    pub fn record_times(&mut self, own: &[Stamp], observed: &Observed, instant_of: impl Fn(Stamp) -> Instant) {
        let sandboxes = observed.sandboxes().flat_map(times_of_sandbox);
        let containers = observed.containers().chain(self.last_exits.values());
        let reported: HashSet<_> =
            sandboxes.chain(containers.flat_map(times_of_container)).chain(own.iter().copied()).collect();
        self.instants.retain(|moment, _| reported.contains(moment));
        for moment in reported {
            self.instants.entry(moment).or_insert_with(|| instant_of(moment));
        }
    }

    /// Returns the `Instant` of a time that a runtime, a label or a file reports; `None` if [`Self::record_times`]
    /// never got it.
    pub fn instant_of(&self, reported: Stamp) -> Option<Instant> {
        self.instants.get(&reported).copied()
    }

    /// Returns the time between two times that a runtime reports.
    pub fn span(&self, from: Timestamp, to: Timestamp) -> Duration {
        match (self.instant_of(from.into()), self.instant_of(to.into())) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => until(from, to),
        }
    }

    /// Returns the state of an image.
    pub fn image(&self, revision: &Revision, of: &ImageFor) -> ImageState {
        self.images.get(&(revision.clone(), of.clone())).cloned().unwrap_or_default()
    }

    /// Returns the states of the images that a container needs.
    pub fn images<'a>(&self, pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = ImageState> {
        image::needs(pod, container).map(|need| self.image(&pod.revision, &need.of))
    }

    /// Returns the first of a container's images whose last pull failed.
    pub fn missing_image<'a>(&self, pod: &'a Pod, container: &'a Container) -> Option<(Need<'a>, ImageState)> {
        let mut states = image::needs(pod, container).map(|need| (self.image(&pod.revision, &need.of), need));
        states.find(|(state, _)| state.failure().is_some()).map(|(state, need)| (need, state))
    }

    /// Sets the state of an image.
    pub fn set_image(&mut self, revision: &Revision, of: ImageFor, state: ImageState) {
        self.images.insert((revision.clone(), of), state);
    }

    /// Returns the missing object that keeps this revision of the pod from starting.
    pub fn missing_object(&self, pod: &Pod) -> Option<&str> {
        self.missing.as_ref().filter(|(revision, _)| *revision == pod.revision).map(|(_, what)| what.as_str())
    }

    /// Sets the missing object that keeps a revision of the pod from starting.
    pub fn set_missing_object(&mut self, missing: Option<(Revision, String)>) {
        self.missing = missing;
    }

    /// Returns the message of the eviction of this revision of the pod, if it was evicted.
    pub fn evicted(&self, pod: &Pod) -> Option<&str> {
        self.evicted.as_ref().filter(|(revision, _)| *revision == pod.revision).map(|(_, why)| why.as_str())
    }

    /// Sets the evicted revision of the pod, with its message.
    pub fn set_evicted(&mut self, evicted: Option<(Revision, String)>) {
        self.evicted = evicted;
    }

    /// Returns whether the pod ends because the node shuts down.
    pub fn is_shutting_down(&self) -> bool {
        self.is_shutting_down
    }

    /// Sets whether the pod ends because the node shuts down.
    pub fn set_shutting_down(&mut self, is_shutting_down: bool) {
        self.is_shutting_down = is_shutting_down;
    }

    /// Returns whether the images and the objects that a pod needs to start are present.
    pub fn is_startable(&self, pod: &Pod) -> bool {
        self.missing_object(pod).is_none()
            && pod.all_containers().flat_map(|it| self.images(pod, it)).all(|image| image == ImageState::Ready)
    }

    /// Forgets the images of every revision but these.
    pub fn keep_images(&mut self, revisions: &[&Revision]) {
        self.images.retain(|(revision, _), _| revisions.contains(&revision));
        self.waiting_for_image.retain(|(revision, _), _| revisions.contains(&revision));
        self.pulled.retain(|(revision, _)| revisions.contains(&revision));
    }

    /// Forgets all images: their states may be those of another backend.
    pub fn forget_images(&mut self) {
        self.keep_images(&[]);
    }

    /// Returns the last failure to start a container.
    pub fn start_failure(&self, container: &str) -> Option<&Failure> {
        self.starts.get(container)
    }

    /// Sets or clears the last failure to start a container.
    pub fn set_start(&mut self, container: &str, failure: Option<Failure>) {
        match failure {
            Some(failure) => self.starts.insert(container.to_owned(), failure),
            None => self.starts.remove(container),
        };
    }

    /// Returns the error of a created container that could not be started. Such a container counts as ended.
    pub fn unstarted(&self, container: &ContainerId) -> Option<&Unstarted> {
        self.unstarted.get(container)
    }

    /// Records that a created container could not be started.
    pub fn set_unstarted(&mut self, container: ContainerId, why: Unstarted) {
        self.unstarted.insert(container, why);
    }

    /// Returns the last failure to create the sandbox.
    pub fn sandbox_failure(&self) -> Option<&Failure> {
        self.sandbox.as_ref()
    }

    /// Sets or clears the last failure to create the sandbox.
    pub fn set_sandbox(&mut self, failure: Option<Failure>) {
        self.sandbox = failure;
    }

    /// Forgets failures to create the sandbox and to start containers: they belong to another revision.
    pub fn begin_revision(&mut self) {
        self.sandbox = None;
        self.starts.clear();
    }

    /// Forgets the attempt numbers and last states of containers.
    pub fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.last_exits.clear();
    }

    /// Records that this container waits for its restart. Returns whether that is new.
    pub fn mark_waiting(&mut self, container: &ContainerId) -> bool {
        self.waiting.insert(container.clone())
    }

    /// Records that a revision waits after a failed pull. Returns whether this failure is new.
    pub fn mark_waiting_for_image(&mut self, revision: &Revision, of: &ImageFor, failure: &Failure) -> bool {
        self.waiting_for_image.insert((revision.clone(), of.clone()), failure.at) != Some(failure.at)
    }

    /// Records whether the next start of a container in a revision follows a pull of its image.
    pub fn set_pulled(&mut self, revision: &Revision, container: &str, pulled: bool) {
        let start = (revision.clone(), container.to_owned());
        match pulled {
            true => self.pulled.insert(start),
            false => self.pulled.remove(&start),
        };
    }

    /// Returns whether a container's image was pulled for this start, and forgets it.
    pub fn take_pulled(&mut self, revision: &Revision, container: &str) -> bool {
        self.pulled.remove(&(revision.clone(), container.to_owned()))
    }

    /// Returns the latest known instance of a container.
    pub fn attempt(&self, container: &str) -> Option<Attempt> {
        self.attempts.get(container).copied()
    }

    /// Sets the latest known instance of a container.
    pub fn set_attempt(&mut self, container: &str, attempt: Attempt) {
        self.attempts.insert(container.to_owned(), attempt);
    }

    /// Returns the last instance of a container that was removed with its sandbox, if it belongs to this revision of
    /// the pod.
    pub fn last_exit(&self, pod: &Pod, container: &str) -> Option<&ContainerInfo> {
        let is_own = |end: &&ContainerInfo| {
            end.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
        };
        self.last_exits.get(container).filter(is_own)
    }

    /// Records a container that was removed with its sandbox, if no later instance has exited.
    pub fn set_last_exit(&mut self, info: &ContainerInfo) {
        let is_latest = self.last_exits.get(&info.name).is_none_or(|known| known.attempt <= info.attempt);
        if is_latest && matches!(info.state, ContainerState::Exited { .. }) {
            self.last_exits.insert(info.name.clone(), info.clone());
        }
    }

    /// Returns whether the network of a sandbox has been released.
    pub fn is_stopped(&self, sandbox: &SandboxId) -> bool {
        self.stopped.contains(sandbox)
    }

    /// Records that the network of a sandbox has been released.
    pub fn set_stopped(&mut self, sandbox: SandboxId) {
        self.stopped.insert(sandbox);
    }

    /// Forgets a sandbox that no longer exists: a runtime may use its id again.
    pub fn forget_sandbox(&mut self, sandbox: &SandboxId) {
        self.stopped.remove(sandbox);
        self.sandboxes_to_restart.remove(sandbox);
    }

    /// Returns whether a user requested a restart of the pod in this sandbox.
    pub fn is_sandbox_to_restart(&self, sandbox: &SandboxId) -> bool {
        self.sandboxes_to_restart.contains(sandbox)
    }

    /// Records that a user requested a restart of the pod in this sandbox.
    pub fn restart_sandbox(&mut self, sandbox: SandboxId) {
        self.sandboxes_to_restart.insert(sandbox);
    }

    /// Returns whether a user requested a restart of this container.
    pub fn is_container_to_restart(&self, container: &ContainerId) -> bool {
        self.containers_to_restart.contains(container)
    }

    /// Records that a user requested a restart of this container.
    pub fn restart_container(&mut self, container: ContainerId) {
        self.containers_to_restart.insert(container);
    }

    /// Returns the hook and probe state of a container.
    pub fn lifecycle(&self, container: &ContainerId) -> LifecycleState {
        self.lifecycles.get(container).cloned().unwrap_or_default()
    }

    /// Returns whether the hook and probe state of a container was ever set.
    pub fn has_lifecycle(&self, container: &ContainerId) -> bool {
        self.lifecycles.contains_key(container)
    }

    /// Sets the hook and probe state of a container.
    pub fn set_lifecycle(&mut self, container: ContainerId, state: LifecycleState) {
        self.lifecycles.insert(container, state);
    }

    /// Returns the termination message of a container; `None` if it has not been read.
    pub fn message(&self, container: &ContainerId) -> Option<&str> {
        self.messages.get(container).map(String::as_str)
    }

    /// Sets the termination message of a container.
    pub fn set_message(&mut self, container: ContainerId, message: String) {
        self.messages.insert(container, message);
    }

    /// Forgets the state of containers and sandboxes that are gone.
    pub fn retain(&mut self, sandboxes: &HashSet<&SandboxId>, containers: &HashSet<&ContainerId>) {
        self.stopped.retain(|id| sandboxes.contains(id));
        self.sandboxes_to_restart.retain(|id| sandboxes.contains(id));
        self.containers_to_restart.retain(|id| containers.contains(id));
        self.lifecycles.retain(|id, _| containers.contains(id));
        let is_shown = |id: &ContainerId| containers.contains(id) || self.last_exits.values().any(|end| end.id == *id);
        self.unstarted.retain(|id, _| is_shown(id));
        self.messages.retain(|id, _| is_shown(id));
        self.waiting.retain(|id| containers.contains(id));
    }

    /// Ends all waits after failures: the next tries are due at once.
    pub fn clear_waits(&mut self) {
        self.sandbox = None;
        self.starts.clear();
        self.images.retain(|_, state| !matches!(state, ImageState::Failed(_)));
    }
}

fn times_of_sandbox(sandbox: &SandboxInfo) -> impl Iterator<Item = Stamp> {
    [outcome::began(sandbox), sandbox.created_at.into()].into_iter()
}

fn times_of_container(container: &ContainerInfo) -> impl Iterator<Item = Stamp> {
    let reported = match container.state {
        ContainerState::Running { started_at } => [started_at, None],
        ContainerState::Exited { started_at, finished_at, .. } => [started_at, finished_at],
        ContainerState::Created | ContainerState::Unknown => [None, None],
    };
    reported.into_iter().flatten().chain([container.created_at]).map(Stamp::from)
}
