//! The worker of one pod: a loop that plans, performs one step, observes the backend, and plans again.
//!
//! # Layout
//! - [`Worker`]: the loop. [`perform`]: the steps. [`images`]: image pulls. [`prepare`]: volumes, files, environment.
//! - [`recall`]: manifests that an earlier agent recorded. [`show`]: the view of the pod. [`container`]: configuration
//!   of sandboxes and containers, with [`security`], [`resources`] and [`mounts`].
//! - [`lives`]: hooks and probes. [`stop`]: order of stops. [`messages`]: termination messages. [`wishes`]: restarts on
//!   request. [`announce`]: events. [`place`]: choice of the backend. [`strays`]: processes that no backend knows.
//!   [`usage`]: disk usage and eviction.

mod announce;
mod container;
mod images;
mod lives;
mod messages;
mod mounts;
mod perform;
mod place;
mod prepare;
mod recall;
mod security;
mod show;
mod stop;
mod strays;
mod usage;
mod wishes;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{pending, select_all};
use jiff::Timestamp;
use stanchion_board::{Subject, view::PodView};
use stanchion_plan as plan;
use stanchion_plan::{
    Action, Plan, Wanted, history::History, observed::Remains, place::Placement, reason::Because, time::Stamp,
    view::View,
};
use stanchion_pod::{Container, Pod, PodKey, PodUid, Revision};
use stanchion_runtime::{ContainerInfo, Error, ErrorKind, Runtime, SandboxState, labels};
use tokio::sync::{SemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use recall::uid;
pub(crate) use show::stamp;
use wishes::Wishes;

use crate::{
    clock::{self, Dial, sleep_until},
    desired::DesiredPod,
    ending::Ending,
    files::Place,
    observe::Observation,
    probe::Told,
    shared::Shared,
};

/// Wait after a failed step: first and longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The two ends that the reconciler holds of a worker.
#[derive(Debug)]
pub(crate) struct Orders {
    pub desired: watch::Sender<Option<DesiredPod>>,
    pub wishes: Arc<Wishes>,
    pub over: Arc<Over>,
}

/// UID of a pod while it has ended by itself: the reconciler then gives its capacity to other pods.
#[derive(Debug, Default)]
pub(crate) struct Over(Mutex<Option<PodUid>>);

impl Over {
    /// Returns whether the pod with this UID has ended; `None` matches any UID.
    pub fn is(&self, uid: Option<&PodUid>) -> bool {
        self.lock().as_ref().is_some_and(|over| uid.is_none_or(|uid| uid == over))
    }

    /// Sets the UID and returns whether it changed.
    fn set(&self, uid: Option<PodUid>) -> bool {
        std::mem::replace(&mut *self.lock(), uid.clone()) != uid
    }

    fn lock(&self) -> MutexGuard<'_, Option<PodUid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Worker of one pod: keeps it in its wanted state.
#[derive(Debug)]
pub(crate) struct Worker<R> {
    key: PodKey,
    shared: Arc<Shared<R>>,
    desired: watch::Receiver<Option<DesiredPod>>,
    wishes: Arc<Wishes>,
    over: Arc<Over>,
    fetched: (mpsc::Sender<images::Fetched>, mpsc::Receiver<images::Fetched>),
    fetches: CancellationToken,
    pulls: images::Pulls,
    fetching: images::Fetching,
    history: History,
    told: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    probes: lives::Probes,
    hooks: lives::Hooks,
    /// The running revision, if its manifest is known.
    running: Option<Running>,
    /// Backends that the pod belongs on or may be on.
    placement: Placement,
    strays: strays::Strays,
    /// `true` once the pod that an earlier agent started has been looked up.
    is_recalled: bool,
    /// The rejected revision, once its event has been emitted.
    refused: Option<Revision>,
    /// The revision whose container attempt numbers have been looked up.
    counted: Option<Revision>,
    /// The revision whose `DeadlineExceeded` event has been emitted.
    expired: Option<Revision>,
    /// The last wanted state of the pod, shown while the pod is being removed.
    last: Option<DesiredPod>,
    /// UIDs that the pod has or had: the clean-up removes their files.
    uids: BTreeSet<PodUid>,
    first_seen: Stamp,
    /// The latest revision after the first one, and when the agent first saw it.
    revised: Option<(Revision, Stamp)>,
    /// Time since which no source wants the pod.
    leaving_since: Option<Timestamp>,
    /// Last view of the pod that shows its containers, while the pod is being removed.
    leaving: Option<PodView>,
    /// Manifest that an earlier agent recorded for a pod that exists and that no source wants.
    left: Option<Arc<Pod>>,
    images_changed: watch::Receiver<u64>,
    ending: watch::Receiver<Option<Ending>>,
    /// Receiver of the node's addresses: a change wakes the worker.
    addresses: watch::Receiver<Vec<IpAddr>>,
    looks: Vec<watch::Receiver<Arc<Observation>>>,
    hold: Hold,
    /// Time of the next disk usage measurement.
    measure_at: Option<Instant>,
    /// Converter from `Instant`s to shown times of day.
    dial: Dial,
    /// The pod and objects that the volumes were last refreshed for.
    followed: Option<prepare::Followed>,
}

/// A revision and the backend that it was put on.
#[derive(Debug)]
struct Running {
    pod: Arc<Pod>,
    backend: String,
    /// `true` once it was stopped so that another revision can replace it.
    is_stopped: bool,
}

/// A pause after a failed step.
#[derive(Debug, Default)]
struct Hold {
    until: Option<Instant>,
    delay: Duration,
}

/// Reason why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing of the pod is left.
    Gone,
    /// The agent stops; the pod runs on.
    Shutdown,
}

impl<R: Runtime> Worker<R> {
    /// Makes the worker of a pod. `recorded` names the backends that earlier agents put the pod on.
    pub(crate) fn new(
        key: PodKey,
        shared: Arc<Shared<R>>,
        desired: Option<DesiredPod>,
        recorded: Vec<Place>,
    ) -> (Self, Orders) {
        let (desired, wanted) = watch::channel(desired);
        let (wishes, over) = (Arc::new(Wishes::default()), Arc::new(Over::default()));
        let (first_seen, dial) = (shared.clock.stamp(), Dial::new(shared.clock));
        let images_changed = shared.images_changed.subscribe();
        let ending = shared.ending.subscribe();
        let addresses = shared.node_addresses.clone();
        let looks = shared.homes.iter().map(|home| home.observer.watch()).collect();
        let records = recorded.iter().map(|it| (&*it.backend, &*it.revision, it.instead_of.as_deref()));
        let worker = Self {
            key,
            fetches: shared.supervisor.shutdown().child_token(),
            shared,
            desired: wanted,
            wishes: Arc::clone(&wishes),
            over: Arc::clone(&over),
            fetched: mpsc::channel(16),
            pulls: images::Pulls::default(),
            fetching: images::Fetching::default(),
            history: History::default(),
            told: mpsc::channel(16),
            probes: lives::Probes::new(),
            hooks: lives::Hooks::new(),
            running: None,
            uids: recorded.iter().map(|place| PodUid::new(&place.uid)).collect(),
            placement: Placement::recorded(records),
            strays: strays::Strays::default(),
            is_recalled: false,
            refused: None,
            counted: None,
            expired: None,
            last: None,
            first_seen,
            revised: None,
            leaving_since: None,
            leaving: None,
            left: None,
            images_changed,
            ending,
            addresses,
            looks,
            hold: Hold::default(),
            followed: None,
            measure_at: None,
            dial,
        };
        (worker, Orders { desired, wishes, over })
    }

    /// Works until the pod is gone or the agent stops.
    pub(crate) async fn run(mut self) -> Ended {
        let shutdown = self.shared.supervisor.shutdown().clone();
        while !shutdown.is_cancelled() {
            let desired = self.desired.borrow_and_update().clone();
            self.take_fetched();
            while let Ok(told) = self.told.1.try_recv() {
                self.hear(told).await;
            }
            // Marked before any observation is read: one that comes later ends the wait below.
            self.looks.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let visible = self.visible();
            let again = self.settle(desired.as_ref()).await;
            let remains = self.remains();
            self.see(&remains);
            self.obey(&remains);
            let search = self.look_for_strays(&remains).await;
            self.recall(desired.as_ref(), &remains).await;
            self.recall_attempts(desired.as_ref()).await;
            self.recall_lives(desired.as_ref(), &remains).await;
            self.read_messages(desired.as_ref(), &remains).await;
            let follow = self.follow(desired.as_ref(), &remains).await;
            let measure = self.measure(desired.as_ref(), &remains).await;
            let Plan { action, wake_at } = self.decide(desired.as_ref(), &remains);
            self.watch(desired.as_ref(), &remains);
            self.announce(desired.as_ref(), &remains);
            let wake_at = [wake_at, again, search, follow, measure].into_iter().flatten().min();
            self.show(desired.as_ref(), &remains);
            match action {
                Some(Action::EnsureImages { revision, images }) => {
                    self.ensure_images(desired.as_ref(), &revision, images);
                }
                Some(Action::CleanUp) => {
                    if self.clean_up().await {
                        self.fetches.cancel();
                        self.remember_pod().await;
                        self.shared.board.remove_pod(&self.key);
                        return Ended::Gone;
                    }
                }
                Some(Action::RunHook { revision, container, id }) => {
                    self.begin_hook(desired.as_ref(), &revision, &container, id).await;
                }
                Some(action) => {
                    let backend = self.backend_of(&action, desired.as_ref());
                    let is_removal = matches!(action, Action::RemoveSandbox { .. });
                    self.perform(action, desired.as_ref()).await;
                    self.look(&backend).await;
                    if is_removal {
                        self.leave(&backend);
                    }
                }
                None => self.wait(wake_at, &visible, &remains, &shutdown).await,
            }
        }
        Ended::Shutdown
    }

    /// Decides the next step: none while the backend cannot be observed or a failed step waits for its retry.
    fn decide(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) -> Plan {
        let home = self.place(desired.map(|desired| &*desired.pod)).backend;
        self.note(desired, remains);
        self.see(remains);
        if !self.is_visible(&home, desired) || self.stray().is_some() {
            return Plan::default();
        }
        let ending = self.ending();
        self.history.set_ending(ending.is_some());
        let Some(wanted) = self.admitted(desired, remains).or(ending.map(|_| None)) else { return Plan::default() };
        let mut view = View { home, remains: remains.to_vec() };
        // Reachable backends come first: their containers can be stopped now.
        view.remains.sort_by_key(|(backend, _)| !self.is_seen(backend));
        let running = self.running.as_ref().map(|Running { pod, backend, is_stopped }| plan::Running {
            pod,
            backend,
            is_stopped: *is_stopped,
        });
        let since = wanted.as_deref().map_or(self.first_seen, |pod| self.since(pod));
        let wanted = Wanted { pod: wanted.as_deref(), running, since, ending };
        let now = clock::instant();
        let plan = plan::plan(wanted, &view, &self.history, now);
        if let Some(action) = &plan.action {
            let backend = self.backend_of(action, desired);
            // The last observation of a backend that is away may be outdated: its next observation comes first.
            let is_away = self.shared.home(&backend).is_some() && !self.is_seen(&backend);
            if is_away || (*action == Action::CleanUp && !self.is_gone()) {
                return Plan { action: None, wake_at: plan.wake_at };
            }
        }
        match self.hold.until {
            Some(until) if until > now && plan.action.as_ref().is_some_and(is_held) => {
                Plan { action: None, wake_at: Some(until) }
            }
            _ => plan,
        }
    }

    /// Returns the time left to stop the pod, if the node shuts down and it is this pod's turn.
    fn ending(&mut self) -> Option<Duration> {
        let ending = (*self.ending.borrow_and_update())?;
        let is_its_turn = self.last.as_ref().is_none_or(|last| ending.is_of(&last.pod.wire));
        is_its_turn.then(|| ending.by.saturating_duration_since(clock::instant()))
    }

    /// Returns the revision to run: the wanted one if the node admits it and no newer one runs, else the running one.
    /// `Some(None)` means that no source wants the pod; `None`, that there is nothing to do until the manifest or the
    /// node changes.
    fn admitted(
        &mut self,
        desired: Option<&DesiredPod>,
        remains: &[(String, Arc<Remains>)],
    ) -> Option<Option<Arc<Pod>>> {
        let Some(desired) = desired else { return Some(None) };
        let Some(Because { reason, message }) = self.rejection(&desired.pod, Some(desired)) else {
            self.refused = None;
            return match self.runs_newer(desired, remains) {
                true => self.running.as_ref().map(|running| Some(Arc::clone(&running.pod))),
                false => Some(Some(Arc::clone(&desired.pod))),
            };
        };
        if self.refused.as_ref() != Some(&desired.pod.revision) {
            self.refused = Some(desired.pod.revision.clone());
            self.shared.events.warning(&Subject::pod(&self.key), reason.as_str(), &*message);
        }
        self.running.as_ref().map(|running| Some(Arc::clone(&running.pod)))
    }

    /// Updates the worker's memory from the wanted pod and the observation.
    fn note(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let sandboxes = remains.iter().flat_map(|(_, remains)| &remains.sandboxes);
        let containers = remains.iter().flat_map(|(_, remains)| &remains.containers);
        for labels in sandboxes.clone().map(|it| &it.labels).chain(containers.clone().map(|it| &it.labels)) {
            self.uids.extend(uid(labels));
        }
        self.history
            .retain(&sandboxes.clone().map(|it| &it.id).collect(), &containers.clone().map(|it| &it.id).collect());
        let Some(desired) = desired else {
            self.leaving_since.get_or_insert(self.shared.clock.now());
            // A pod that is wanted again requests its images again.
            self.history.forget_images();
            self.keep_fetches(&[]);
            return;
        };
        (self.leaving_since, self.leaving) = (None, None);
        if self.last.as_ref().is_some_and(|last| last.pod.revision != desired.pod.revision) {
            self.history.begin_revision();
            self.revised = Some((desired.pod.revision.clone(), self.shared.clock.stamp()));
        }
        if self.last.as_ref().is_some_and(|last| desired.refers_to_news(last)) {
            self.history.hurry();
        }
        let lacks = desired.lacks().map(|object| (desired.pod.revision.clone(), format!("{object} not found")));
        self.history.set_lacking(lacks);
        // A container or sandbox that exists although its call failed counts as made.
        for container in containers.filter(|container| plan::is_running(container)) {
            self.history.set_start(&container.name, None);
        }
        if sandboxes.clone().any(|it| it.state == SandboxState::Ready && plan::is_current(it, &desired.pod)) {
            self.history.set_sandbox(None);
        }
        self.uids.insert(desired.pod.uid.clone());
        let running = self.running.as_ref().map(|running| running.pod.revision.clone());
        let revisions: Vec<_> = [Some(&desired.pod.revision), running.as_ref()].into_iter().flatten().collect();
        self.history.keep_images(&revisions);
        self.keep_fetches(&revisions);
        if let Some((backend, _)) =
            remains.iter().find(|(_, remains)| remains.sandboxes.iter().any(|it| plan::is_current(it, &desired.pod)))
        {
            self.running = Some(Running { pod: Arc::clone(&desired.pod), backend: backend.clone(), is_stopped: false });
        }
        self.last = Some(desired.clone());
    }

    /// Returns a revision's manifest and its backend, if the worker knows them.
    fn revision(&mut self, desired: Option<&DesiredPod>, revision: &Revision) -> Option<(Arc<Pod>, String)> {
        if let Some(desired) = desired.filter(|desired| desired.pod.revision == *revision) {
            return Some((Arc::clone(&desired.pod), self.backend(Some(&desired.pod))));
        }
        let running = self.running.as_ref().filter(|running| running.pod.revision == *revision)?;
        Some((Arc::clone(&running.pod), running.backend.clone()))
    }

    fn runtime(&self, backend: &str) -> Result<Arc<R>, Error> {
        let open = self.shared.home(backend).and_then(|home| home.backend.runtime());
        open.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("backend {backend:?} is not open")))
    }

    /// Observes the pod again on the backend that a step acted on, if it answers. Leaves out the other backends: one
    /// that hangs delays only its own pods (I8).
    async fn look(&self, backend: &str) {
        let Some(home) = self.shared.home(backend).filter(|home| home.observer.latest().is_current()) else { return };
        let Some(runtime) = home.backend.runtime() else { return };
        if !home.observer.look_at(&*runtime, &self.key).await {
            home.observer.look().await;
        }
    }

    /// Returns the backend that a step acts on.
    fn backend_of(&mut self, action: &Action, desired: Option<&DesiredPod>) -> String {
        match action {
            Action::StopContainers { backend, .. }
            | Action::StopSandbox { backend, .. }
            | Action::RemoveSandbox { backend, .. }
            | Action::RemoveContainer { backend, .. } => backend.clone(),
            Action::EnsureImages { revision, .. }
            | Action::CreateSandbox { revision, .. }
            | Action::StartContainer { revision, .. }
            | Action::RunHook { revision, .. }
            | Action::RunContainer(plan::Run { revision, .. }) => {
                self.revision(desired, revision).map(|(_, backend)| backend).unwrap_or_default()
            }
            Action::CleanUp => String::new(),
        }
    }

    /// Waits until there is something to plan for.
    async fn wait(
        &mut self,
        wake_at: Option<Instant>,
        visible: &[(bool, Option<String>)],
        remains: &[(String, Arc<Remains>)],
        shutdown: &CancellationToken,
    ) {
        let sleep = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::pin!(sleep);
        loop {
            let looked = looked(&mut self.looks);
            // *Cancel-safe:* every arm waits on a channel or the clock and keeps what it has not delivered.
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = self.desired.changed() => match changed {
                    Ok(()) => return,
                    // The reconciler has stopped with the agent.
                    Err(_) => shutdown.cancelled().await,
                },
                () = self.wishes.made() => return,
                Some(fetched) = self.fetched.1.recv() => return self.take(fetched),
                Some(told) = self.told.1.recv() => return self.hear(told).await,
                Ok(()) = self.images_changed.changed() => return self.history.hurry(),
                Ok(()) = self.ending.changed() => return,
                // Addresses are only shown: a change restarts nothing.
                Ok(()) = self.addresses.changed() => return,
                () = &mut sleep => return,
                changed = looked => if changed.is_err() { return },
            }
            if self.visible() != visible || self.remains() != remains {
                return;
            }
        }
    }

    /// Returns for each backend whether it was ever observed, and why the latest observation failed.
    fn visible(&self) -> Vec<(bool, Option<String>)> {
        let looks = self.shared.homes.iter().map(|home| home.observer.latest());
        looks.map(|look| (look.seen, look.error.clone())).collect()
    }

    /// Converts times that runtimes report to `Instant`s, as soon as they are first seen.
    fn see(&mut self, remains: &[(String, Arc<Remains>)]) {
        let (clock, revised) = (self.shared.clock, self.revised.as_ref().map_or(self.first_seen, |(_, since)| *since));
        self.history.see(&[self.first_seen, revised], remains, |told| clock.instant_of(told));
    }

    /// Applies the restarts that users requested. A request during a restart of the pod is part of that restart.
    fn obey(&mut self, remains: &[(String, Arc<Remains>)]) {
        let wanted = self.wishes.take();
        if wanted.is_empty() {
            return;
        }
        self.history.hurry();
        self.history.set_evicted(None);
        for (_, remains) in remains {
            if wanted.pod {
                remains.sandboxes.iter().for_each(|sandbox| self.history.condemn(sandbox.id.clone()));
            }
            for name in &wanted.containers {
                let newest = remains.containers.iter().rfind(|instance| instance.name == *name);
                newest.into_iter().for_each(|instance| self.history.restart(instance.id.clone()));
            }
        }
    }

    async fn permit(&self, backend: &str) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed. Without a permit the work would go on unbounded rather than not at all.
        self.shared.home(backend)?.permits.acquire().await.ok()
    }

    /// Returns whether an instance of the container exists in this revision of the pod.
    fn has_run(&self, pod: &Pod, container: &Container) -> bool {
        let is_life = |instance: &ContainerInfo| {
            instance.name == container.name
                && instance.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
        };
        self.remains().iter().flat_map(|(_, remains)| &remains.containers).any(is_life)
    }
}

/// Waits for a new observation of any backend.
///
/// *Cancel-safe:* only watches.
async fn looked(looks: &mut [watch::Receiver<Arc<Observation>>]) -> Result<(), watch::error::RecvError> {
    match looks.is_empty() {
        true => pending().await,
        false => select_all(looks.iter_mut().map(|look| Box::pin(look.changed()))).await.0,
    }
}

/// Returns whether a step waits after a failure of any such step. The other steps have back-offs of their own in the
/// history.
fn is_held(action: &Action) -> bool {
    !matches!(
        action,
        Action::EnsureImages { .. }
            | Action::CreateSandbox { .. }
            | Action::RunContainer(_)
            | Action::StartContainer { .. }
    )
}
