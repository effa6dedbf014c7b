//! What the agent remembers of its own tries. Losing it costs at most an early retry.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, ErrorKind, SandboxId, SandboxInfo, labels};
use tokio::time::Instant;

use super::{
    fate,
    image::{self, ImageFor, Need},
    life::Life,
};
use crate::{
    clock::{Stamp, after, until},
    observe::Remains,
};

/// First and longest wait after a failure that will not pass by itself (R-IMG-4, R-LOOP-3).
const LASTING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// First and longest wait after a failure that may pass at any moment.
const PASSING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long a failure is shown before the wait after it, as a kubelet does from one of its turns to the next.
const SHOWN: Duration = Duration::from_secs(1);

/// One pod's tries.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    images: HashMap<(Revision, ImageFor), ImageState>,
    starts: HashMap<String, Failure>,
    unstarted: HashMap<ContainerId, Unstarted>,
    sandbox: Option<Failure>,
    lacking: Option<(Revision, String)>,
    evicted: Option<(Revision, String)>,
    is_ending: bool,
    stopped: HashSet<SandboxId>,
    condemned: HashSet<SandboxId>,
    to_restart: HashSet<ContainerId>,
    lives: HashMap<ContainerId, Life>,
    messages: HashMap<ContainerId, String>,
    attempts: HashMap<String, Attempt>,
    ends: HashMap<String, ContainerInfo>,
    waiting: HashSet<ContainerId>,
    waiting_for_image: HashMap<ImageFor, Instant>,
    pulled: HashSet<String>,
    moments: HashMap<Stamp, Instant>,
}

/// The latest life of a container that is known of, whether or not the runtime has forgotten it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// How many were before it.
    pub attempt: u32,
    /// How long the restart after the next one waits.
    pub backoff: Duration,
}

/// Why a container that was made could not be started, and when that was.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unstarted {
    pub message: String,
    pub at: Timestamp,
}

/// How far an image is, for one use in one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum ImageState {
    /// Not asked for.
    #[default]
    Unknown,
    /// Being fetched; for the second time and on after the failure.
    Pulling(Option<Failure>),
    /// Here.
    Ready,
    /// Could not be had.
    Failed(Failure),
}

impl ImageState {
    /// Why it could not be had when it was last tried.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) | Self::Pulling(Some(failure)) => Some(failure),
            _ => None,
        }
    }

    /// When to ask again.
    pub fn next_try(&self) -> Option<Instant> {
        match self {
            Self::Failed(failure) => Some(failure.next_try),
            _ => None,
        }
    }
}

/// A failed try.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    /// One word, as container statuses have it, e.g. `ErrImagePull`.
    pub reason: &'static str,
    /// What happened.
    pub message: String,
    /// When it happened.
    pub at: Instant,
    /// When to try again.
    pub next_try: Instant,
    delay: Duration,
}

impl Failure {
    /// A failure of `kind` at `now`, after `last`; `retry_after` is what the other side asked for.
    pub fn after(
        last: Option<&Self>,
        reason: &'static str,
        message: String,
        kind: ErrorKind,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Self {
        let (first, longest) = match kind {
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Cancelled
            | ErrorKind::Conflict
            | ErrorKind::AlreadyExists => PASSING,
            _ => LASTING,
        };
        let delay = last.map_or(first, |last| (last.delay * 2).clamp(first, longest));
        let next_try = after(now, retry_after.map_or(delay, |asked| asked.max(delay)));
        Self { reason, message, at: now, next_try, delay }
    }

    /// Whether it is shown as what it is, before the wait for the next try is shown.
    pub fn is_new(&self, now: Instant) -> bool {
        self.until_shown(now).is_some()
    }

    /// When it is shown no more, if that is still to come.
    pub fn until_shown(&self, now: Instant) -> Option<Instant> {
        Some(after(self.at, SHOWN)).filter(|at| *at > now)
    }

    /// A failure at `now` that something else than this says when to try again after.
    pub fn shown(reason: &'static str, message: String, now: Instant) -> Self {
        Self { reason, message, at: now, next_try: now, delay: Duration::ZERO }
    }
}

impl History {
    /// Notes when the moments were that `seen` tells of, each as `instant_of` has it when it is seen first; and `own`, what
    /// the agent has noted. Forgets those that nothing tells of any more.
    pub fn see(&mut self, own: &[Stamp], seen: &[(String, Arc<Remains>)], instant_of: impl Fn(Stamp) -> Instant) {
        let remains = || seen.iter().map(|(_, remains)| remains);
        let sandboxes = remains().flat_map(|remains| &remains.sandboxes).flat_map(moments_of_sandbox);
        let containers = remains().flat_map(|remains| &remains.containers).chain(self.ends.values());
        let told: HashSet<_> =
            sandboxes.chain(containers.flat_map(moments_of_container)).chain(own.iter().copied()).collect();
        self.moments.retain(|moment, _| told.contains(moment));
        for moment in told {
            self.moments.entry(moment).or_insert_with(|| instant_of(moment));
        }
    }

    /// When a moment was that a runtime, a label or a file tells; `None` for one that was not seen.
    pub fn instant_of(&self, told: Stamp) -> Option<Instant> {
        self.moments.get(&told).copied()
    }

    /// How long it was from one moment that a runtime tells to another.
    pub fn span(&self, from: Timestamp, to: Timestamp) -> Duration {
        match (self.instant_of(from.into()), self.instant_of(to.into())) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => until(from, to),
        }
    }

    /// How far an image is.
    pub fn image(&self, revision: &Revision, of: &ImageFor) -> ImageState {
        self.images.get(&(revision.clone(), of.clone())).cloned().unwrap_or_default()
    }

    /// How far the images are that a container starts from.
    pub fn images<'a>(&self, pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = ImageState> {
        image::needs(pod, container).map(|need| self.image(&pod.revision, &need.of))
    }

    /// The first image that a container starts from and that could not be had when it was last tried.
    pub fn missing_image<'a>(&self, pod: &'a Pod, container: &'a Container) -> Option<(Need<'a>, ImageState)> {
        let mut states = image::needs(pod, container).map(|need| (self.image(&pod.revision, &need.of), need));
        states.find(|(state, _)| state.failure().is_some()).map(|(state, need)| (need, state))
    }

    /// Notes how far an image is.
    pub fn set_image(&mut self, revision: &Revision, of: ImageFor, state: ImageState) {
        self.images.insert((revision.clone(), of), state);
    }

    /// What a pod cannot start without and is not there.
    pub fn lacking(&self, pod: &Pod) -> Option<&str> {
        self.lacking.as_ref().filter(|(revision, _)| *revision == pod.revision).map(|(_, what)| what.as_str())
    }

    /// Notes what a revision of the pod cannot start without and is not there.
    pub fn set_lacking(&mut self, lacking: Option<(Revision, String)>) {
        self.lacking = lacking;
    }

    /// Why a pod was evicted, if it was.
    pub fn evicted(&self, pod: &Pod) -> Option<&str> {
        self.evicted.as_ref().filter(|(revision, _)| *revision == pod.revision).map(|(_, why)| why.as_str())
    }

    /// Notes that a revision of the pod is evicted, and why.
    pub fn set_evicted(&mut self, evicted: Option<(Revision, String)>) {
        self.evicted = evicted;
    }

    /// Whether the pod ends because the node does.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Notes whether it does.
    pub fn set_ending(&mut self, is_ending: bool) {
        self.is_ending = is_ending;
    }

    /// Whether all that a pod starts from is here: its images and the objects that it refers to.
    pub fn is_startable(&self, pod: &Pod) -> bool {
        self.lacking(pod).is_none()
            && pod.all_containers().flat_map(|it| self.images(pod, it)).all(|image| image == ImageState::Ready)
    }

    /// Forgets the images of every revision but these.
    pub fn keep_images(&mut self, revisions: &[&Revision]) {
        self.images.retain(|(revision, _), _| revisions.contains(&revision));
    }

    /// Forgets all images: what is known of them was said of another backend.
    pub fn forget_images(&mut self) {
        self.images.clear();
    }

    /// The last failure to start a container.
    pub fn start_failure(&self, container: &str) -> Option<&Failure> {
        self.starts.get(container)
    }

    /// Notes whether a container could be started.
    pub fn set_start(&mut self, container: &str, failure: Option<Failure>) {
        match failure {
            Some(failure) => self.starts.insert(container.to_owned(), failure),
            None => self.starts.remove(container),
        };
    }

    /// Why a container could not be started: it has ended before it began.
    pub fn unstarted(&self, container: &ContainerId) -> Option<&Unstarted> {
        self.unstarted.get(container)
    }

    /// Notes that a container could not be started.
    pub fn set_unstarted(&mut self, container: ContainerId, why: Unstarted) {
        self.unstarted.insert(container, why);
    }

    /// The last failure to make the sandbox.
    pub fn sandbox_failure(&self) -> Option<&Failure> {
        self.sandbox.as_ref()
    }

    /// Notes whether the sandbox could be made.
    pub fn set_sandbox(&mut self, failure: Option<Failure>) {
        self.sandbox = failure;
    }

    /// Forgets what could not be made: what is to be made from now on is another.
    pub fn begin_revision(&mut self) {
        self.sandbox = None;
        self.starts.clear();
    }

    /// Forgets the numbers and ends of containers.
    pub fn forget_attempts(&mut self) {
        self.attempts.clear();
        self.ends.clear();
    }

    /// Notes that the restart after this container waits. Whether that is new.
    pub fn wait(&mut self, container: &ContainerId) -> bool {
        self.waiting.insert(container.clone())
    }

    /// Notes that a pod waits after an image could not be pulled. Whether that is new.
    pub fn wait_for_image(&mut self, of: &ImageFor, failure: &Failure) -> bool {
        self.waiting_for_image.insert(of.clone(), failure.at) != Some(failure.at)
    }

    /// Notes whether a container's image was pulled for its next start.
    pub fn set_pulled(&mut self, container: &str, pulled: bool) {
        match pulled {
            true => self.pulled.insert(container.to_owned()),
            false => self.pulled.remove(container),
        };
    }

    /// Whether a container's image was pulled for the start that comes now.
    pub fn take_pulled(&mut self, container: &str) -> bool {
        self.pulled.remove(container)
    }

    /// The latest life of a container.
    pub fn attempt(&self, container: &str) -> Option<Attempt> {
        self.attempts.get(container).copied()
    }

    /// Notes the latest life of a container.
    pub fn set_attempt(&mut self, container: &str, attempt: Attempt) {
        self.attempts.insert(container.to_owned(), attempt);
    }

    /// How the latest life of a pod's container ended that went with its sandbox.
    pub fn end(&self, pod: &Pod, container: &str) -> Option<&ContainerInfo> {
        let is_own = |end: &&ContainerInfo| {
            end.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
        };
        self.ends.get(container).filter(is_own)
    }

    /// Notes a container that went with its sandbox.
    pub fn set_end(&mut self, info: &ContainerInfo) {
        let is_latest = self.ends.get(&info.name).is_none_or(|known| known.attempt <= info.attempt);
        if is_latest && matches!(info.state, ContainerState::Exited { .. }) {
            self.ends.insert(info.name.clone(), info.clone());
        }
    }

    /// Whether a sandbox's network has been released.
    pub fn is_stopped(&self, sandbox: &SandboxId) -> bool {
        self.stopped.contains(sandbox)
    }

    /// Notes that a sandbox's network has been released.
    pub fn set_stopped(&mut self, sandbox: SandboxId) {
        self.stopped.insert(sandbox);
    }

    /// Notes that a sandbox exists no more; its id may come again.
    pub fn forget_sandbox(&mut self, sandbox: &SandboxId) {
        self.stopped.remove(sandbox);
        self.condemned.remove(sandbox);
    }

    /// Whether a user wants the pod in this sandbox restarted.
    pub fn is_condemned(&self, sandbox: &SandboxId) -> bool {
        self.condemned.contains(sandbox)
    }

    /// Notes that a user wants the pod in this sandbox restarted.
    pub fn condemn(&mut self, sandbox: SandboxId) {
        self.condemned.insert(sandbox);
    }

    /// Whether a user wants this container restarted.
    pub fn is_to_restart(&self, container: &ContainerId) -> bool {
        self.to_restart.contains(container)
    }

    /// Notes that a user wants this container restarted.
    pub fn restart(&mut self, container: ContainerId) {
        self.to_restart.insert(container);
    }

    /// What is known of a container's life beyond what the runtime says.
    pub fn life(&self, container: &ContainerId) -> Life {
        self.lives.get(container).cloned().unwrap_or_default()
    }

    /// Whether anything was ever noted of a container's life.
    pub fn has_life(&self, container: &ContainerId) -> bool {
        self.lives.contains_key(container)
    }

    /// Notes something of a container's life.
    pub fn set_life(&mut self, container: ContainerId, life: Life) {
        self.lives.insert(container, life);
    }

    /// The last words of a container that has ended; `None` where they have not been read.
    pub fn message(&self, container: &ContainerId) -> Option<&str> {
        self.messages.get(container).map(String::as_str)
    }

    /// Notes a container's last words.
    pub fn set_message(&mut self, container: ContainerId, words: String) {
        self.messages.insert(container, words);
    }

    /// Forgets what was noted of containers and sandboxes that are gone.
    pub fn retain(&mut self, sandboxes: &HashSet<&SandboxId>, containers: &HashSet<&ContainerId>) {
        self.stopped.retain(|id| sandboxes.contains(id));
        self.condemned.retain(|id| sandboxes.contains(id));
        self.to_restart.retain(|id| containers.contains(id));
        self.lives.retain(|id, _| containers.contains(id));
        let is_shown = |id: &ContainerId| containers.contains(id) || self.ends.values().any(|end| end.id == *id);
        self.unstarted.retain(|id, _| is_shown(id));
        self.messages.retain(|id, _| is_shown(id));
        self.waiting.retain(|id| containers.contains(id));
    }

    /// Lets everything that waits for a time be tried at once.
    pub fn hurry(&mut self) {
        self.sandbox = None;
        self.starts.clear();
        self.images.retain(|_, state| !matches!(state, ImageState::Failed(_)));
    }
}

fn moments_of_sandbox(sandbox: &SandboxInfo) -> impl Iterator<Item = Stamp> {
    [fate::began(sandbox), sandbox.created_at.into()].into_iter()
}

fn moments_of_container(container: &ContainerInfo) -> impl Iterator<Item = Stamp> {
    let told = match container.state {
        ContainerState::Running { started_at } => [started_at, None],
        ContainerState::Exited { started_at, finished_at, .. } => [started_at, finished_at],
        ContainerState::Created | ContainerState::Unknown => [None, None],
    };
    told.into_iter().flatten().chain([container.created_at]).map(Stamp::from)
}
