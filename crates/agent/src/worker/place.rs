//! Choice of a pod's backend, and failover while that backend is away.
//!
//! A pod stays where it runs until its configuration moves it or its backend is gone. Then another backend takes it, if
//! `failover` is configured and none of its processes is left. Without that certainty it waits (I1).

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_plan::{observed::Remains, time::after};
use stanchion_pod::{Pod, PodUid, RestartPolicy, Revision};
use stanchion_runtime::{ContainerInfo, ContainerState, OnReturn, Runtime};

use super::Worker;
use crate::{clock::instant, config::DefaultBackend, desired::DesiredPod, events::Subject, files::Place, node::Home};

/// Interval between searches for processes of a pod whose backend is lost.
const AGAIN: Duration = Duration::from_secs(5);

/// Exit code of a container that could not be started (R-TERM-8).
const UNSTARTED: i32 = 128;

/// The backends of a pod, as its worker knows them.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Backends that this or an earlier agent put the pod on: until they have been observed it may run there.
    lived_on: BTreeSet<String>,
    /// The chosen backend, if `default_backend` is `auto`.
    auto: Option<String>,
    /// The fallback, while the pod runs on another backend than its own.
    refuge: Option<Refuge>,
    /// Backends that are away: given up because no process of the pod is left, or not yet, and why.
    lost: BTreeMap<String, Lost>,
}

/// A revision that runs on another backend than its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refuge {
    revision: Revision,
    instead_of: String,
    backend: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Lost {
    /// No process of the pod is left there.
    Dead,
    /// Processes of the pod may be left there; the text says why.
    Doubtful(String),
}

impl Places {
    /// Takes over the places that earlier agents recorded.
    pub fn new(recorded: Vec<Place>) -> Self {
        let mut places = Self::default();
        for Place { backend, revision, instead_of, .. } in recorded {
            places.lived_on.insert(backend.clone());
            if let Some(instead_of) = instead_of {
                places.refuge = Some(Refuge { revision: Revision::new(&revision), instead_of, backend });
            }
        }
        places
    }

    fn is_dead_on(&self, backend: &str) -> bool {
        self.lost.get(backend) == Some(&Lost::Dead)
    }
}

impl<R: Runtime> Worker<R> {
    /// Returns the backend that the pod must run on: its own or the fallback.
    pub(super) fn home_name(&mut self, pod: Option<&Pod>) -> String {
        let own = self.own_home(pod);
        let refuge = self.places.refuge.as_ref().filter(|refuge| refuge.instead_of == own);
        match refuge.filter(|refuge| pod.is_some_and(|pod| pod.revision == refuge.revision)) {
            Some(refuge) => refuge.backend.clone(),
            None => own,
        }
    }

    /// Returns the backend that the configuration gives a pod; empty if there is none.
    fn own_home(&mut self, pod: Option<&Pod>) -> String {
        let named = pod.and_then(|pod| pod.runtime_class.as_deref());
        if let Some(class) = named {
            return self.shared.config.runtime_classes.get(class).cloned().unwrap_or_default();
        }
        match &self.shared.config.default_backend {
            DefaultBackend::Named(name) => name.clone(),
            // A pod stays on its first backend as long as this agent runs.
            DefaultBackend::Auto => match &self.places.auto {
                Some(home) => home.clone(),
                None => {
                    let occupied = self.remains().into_iter().map(|(home, _)| home).next();
                    let is_healthy = |home: &&Home<R>| home.observer.latest().is_current();
                    let healthy = self.shared.homes.iter().find(is_healthy).map(|home| home.backend.name.clone());
                    let mut lived_on = self.places.lived_on.iter();
                    let lived_on = lived_on.find(|backend| self.shared.home(backend).is_some()).cloned();
                    self.places.auto = occupied.or(lived_on).or(healthy);
                    self.places.auto.clone().unwrap_or_default()
                }
            },
        }
    }

    /// Returns the pod's own backend if it runs on `backend` as a fallback.
    pub(super) fn instead_of(&self, revision: &Revision, backend: &str) -> Option<String> {
        let refuge = self.places.refuge.as_ref()?;
        (refuge.revision == *revision && refuge.backend == backend).then(|| refuge.instead_of.clone())
    }

    /// Returns the observed sandboxes and containers of the pod, by backend. Leaves out backends that are away and
    /// given up.
    pub(super) fn remains(&self) -> Vec<(String, Arc<Remains>)> {
        let of = |home: &Home<R>| {
            let latest = home.observer.latest();
            let is_dead = !latest.is_current() && self.places.is_dead_on(&home.backend.name);
            let remains = latest.pods.get(&self.key).filter(|_| !is_dead)?;
            Some((home.backend.name.clone(), self.with_unstarted(remains)))
        };
        self.shared.homes.iter().filter_map(of).collect()
    }

    /// Shows a container that could not be started as exited, although its runtime reports it as created (R-TERM-8).
    fn with_unstarted(&self, remains: &Arc<Remains>) -> Arc<Remains> {
        let unstarted =
            |it: &ContainerInfo| self.history.unstarted(&it.id).filter(|_| it.state == ContainerState::Created);
        let mut remains = Arc::clone(remains);
        if remains.containers.iter().any(|it| unstarted(it).is_some()) {
            for container in &mut Arc::make_mut(&mut remains).containers {
                let Some(why) = unstarted(container) else { continue };
                let (code, started_at, finished_at) = (Some(UNSTARTED), Some(Timestamp::UNIX_EPOCH), Some(why.at));
                container.state = ContainerState::Exited { code, started_at, finished_at, oom_killed: false };
            }
        }
        remains
    }

    /// Returns whether the agent observes all backends that the pod's next step depends on.
    pub(super) fn is_visible(&self, home: &str, desired: Option<&DesiredPod>) -> bool {
        desired.is_none() || (self.is_seen(home) && self.unseen().is_none())
    }

    /// Returns whether a backend exists and its latest observation succeeded.
    pub(super) fn is_seen(&self, backend: &str) -> bool {
        self.shared.home(backend).is_some_and(|home| home.observer.latest().is_current())
    }

    /// Waits until a backend cannot be observed any more: it may never answer a pending call.
    pub(super) fn until_away(&self, backend: &str) -> impl Future<Output = ()> + Send + use<R> {
        let looks = self.shared.home(backend).map(|home| home.observer.watch());
        async move {
            let Some(mut looks) = looks else { return future::pending().await };
            if looks.wait_for(|latest| !latest.is_current()).await.is_err() {
                future::pending::<()>().await;
            }
        }
    }

    /// Returns whether a pod without sandboxes and containers is gone: every backend where it may be confirms that, or
    /// has been given up.
    pub(super) fn is_gone(&mut self) -> bool {
        let pod = self.last.as_ref().map(|last| Arc::clone(&last.pod));
        let own = self.own_home(pod.as_deref());
        let mut homes = self.shared.homes.iter().filter(|home| self.may_live_on(home, &own)).peekable();
        // Without such a backend the pod was never put on one, or nothing is known yet.
        let is_anywhere = homes.peek().is_some() || self.places.is_dead_on(&own);
        // A `runtimeClassName` that is not configured has no backend.
        let is_homeless = own.is_empty() && pod.is_some_and(|pod| pod.runtime_class.is_some());
        (is_anywhere || is_homeless) && homes.all(|home| home.observer.latest().is_current())
    }

    /// Records that the pod is about to be put on a backend.
    pub(super) fn settle_on(&mut self, backend: &str) {
        self.places.lived_on.insert(backend.to_owned());
    }

    /// Forgets a backend that confirms that nothing of the pod is left there: the pod need not wait for it if it hangs
    /// later.
    pub(super) fn leave(&mut self, backend: &str) {
        let latest = self.shared.home(backend).map(|home| home.observer.latest());
        if latest.is_some_and(|latest| latest.is_current() && !latest.pods.contains_key(&self.key)) {
            self.places.lived_on.remove(backend);
        }
    }

    /// Returns a backend where the pod may run and that has not been observed since the agent started (I1).
    fn unseen(&self) -> Option<&Home<R>> {
        let places = &self.places;
        let may_live = |name: &String| places.lived_on.contains(name) && !places.is_dead_on(name);
        let is_unseen = |home: &&Home<R>| !home.observer.latest().seen && may_live(&home.backend.name);
        self.shared.homes.iter().find(is_unseen)
    }

    /// Gives up backends that are gone, and finds another for the pod. Returns when to check again.
    pub(super) async fn fail_over(&mut self, desired: Option<&DesiredPod>) -> Option<Instant> {
        let pod = desired.map(|desired| Arc::clone(&desired.pod));
        let own = self.own_home(pod.as_deref());
        self.go_home(&own);
        let mut again = None;
        let is_away = |home: &&Home<R>| !home.observer.latest().is_current() && self.may_live_on(home, &own);
        let away: Vec<_> = self.shared.homes.iter().filter(is_away).map(|home| home.backend.name.clone()).collect();
        for name in away {
            if let Some(at) = self.give_up(&name).await {
                again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
            }
        }
        if self.places.refuge.as_ref().is_some_and(|refuge| self.places.is_dead_on(&refuge.backend)) {
            self.places.refuge = None;
            self.history.forget_images();
        }
        if let Some(pod) = pod
            && self.places.is_dead_on(&own)
            && self.home_name(Some(&pod)) == own
        {
            self.flee(&pod, &own);
        }
        again
    }

    /// Forgets the loss of backends that are back. Moves the pod back to its own backend if `on_return` is `Migrate`.
    fn go_home(&mut self, own: &str) {
        let is_back = |name: &str| self.shared.home(name).is_some_and(|home| home.observer.latest().is_current());
        self.places.lost.retain(|name, _| !is_back(name));
        let migrates =
            self.shared.home(own).and_then(Home::failover).is_some_and(|it| it.on_return == OnReturn::Migrate);
        if migrates && is_back(own) && self.places.refuge.take_if(|refuge| refuge.instead_of == own).is_some() {
            // The other backend may have other images.
            self.history.forget_images();
            let message = format!("Backend {own} is back; the pod moves there again");
            self.shared.events.normal(&Subject::pod(&self.key), "Returning", message);
        }
    }

    /// Returns whether the pod may be on a backend: it belongs there, was put there, or was observed there, and that
    /// backend has not been given up.
    fn may_live_on(&self, home: &Home<R>, own: &str) -> bool {
        let name = &home.backend.name;
        let was_there = self.places.lived_on.contains(name) || home.observer.latest().pods.contains_key(&self.key);
        (name == own || was_there) && !self.places.is_dead_on(name)
    }

    /// Gives a backend up if failover is configured, it has been away for long enough, and no process of the pod is
    /// left. Returns when to check again.
    async fn give_up(&mut self, name: &str) -> Option<Instant> {
        let home = self.shared.home(name)?;
        let (failover, latest) = (home.failover()?, home.observer.latest());
        // A backend that hangs may still carry out an earlier call at any time.
        if !latest.is_absent {
            return None;
        }
        let left = failover.after.saturating_sub(self.shared.clock.stamp().since(latest.since));
        if !left.is_zero() {
            return Some(after(instant(), left));
        }
        let doubt = match self.shared.survivors.any_of(&self.known_uids()).await {
            Ok(None) => {
                let message =
                    format!("Backend {name} is away since {}, and nothing of the pod runs", latest.since.wall);
                self.shared.events.warning(&Subject::pod(&self.key), "BackendLost", message);
                self.places.lost.insert(name.to_owned(), Lost::Dead);
                return None;
            }
            Ok(Some(_)) => "its processes there still run".to_owned(),
            Err(error) => format!("whether its processes there still run cannot be seen: {error}"),
        };
        self.places.lost.insert(name.to_owned(), Lost::Doubtful(doubt));
        Some(after(instant(), AGAIN))
    }

    /// Returns whether the pod was put on backends, and all of them are observed now.
    pub(super) fn has_vanished(&self) -> bool {
        let mut lived_on = self.places.lived_on.iter().filter(|name| !self.places.is_dead_on(name)).peekable();
        lived_on.peek().is_some() && lived_on.all(|name| self.is_seen(name))
    }

    pub(super) fn known_uids(&self) -> BTreeSet<PodUid> {
        let pods = [self.last.as_ref().map(|last| &last.pod), self.running.as_ref().map(|running| &running.pod)];
        let mut uids: BTreeSet<_> = pods.into_iter().flatten().map(|pod| pod.uid.clone()).collect();
        uids.extend(self.uids.iter().cloned());
        uids.extend(self.desired.borrow().as_ref().map(|desired| desired.pod.uid.clone()));
        uids
    }

    /// Moves the pod to the first backend that works. A pod with `runtimeClassName` waits for its backend. So does one
    /// without `restartPolicy: Always`: it may have completed, and only its backend knows.
    fn flee(&mut self, pod: &Pod, own: &str) {
        if pod.runtime_class.is_some() || pod.restart_policy != RestartPolicy::Always {
            return;
        }
        let mut homes = self.shared.homes.iter();
        let Some(refuge) = homes.find(|home| home.backend.name != own && home.observer.latest().is_current()) else {
            return;
        };
        let backend = refuge.backend.name.clone();
        let message = format!("Backend {own} is away; the pod runs on {backend} instead");
        self.shared.events.warning(&Subject::pod(&self.key), "FailedOver", message);
        self.history.forget_images();
        // Nothing of the pod runs on its own backend any more.
        self.running = self.running.take().filter(|running| running.backend != own);
        let (revision, instead_of) = (pod.revision.clone(), own.to_owned());
        self.places.refuge = Some(Refuge { revision, instead_of, backend });
    }

    /// Returns reason and message if nothing can be done for the pod now.
    pub(super) fn obstacle(&self, home: &str, pod: &Pod) -> Option<(&'static str, String)> {
        if let Some(why) = self.stray() {
            return Some(("ProcessesLeft", why.to_owned()));
        }
        if let Some(class) = pod.runtime_class.as_deref().filter(|_| home.is_empty()) {
            let message = format!("runtimeClassName {class:?} is not named in [runtime_classes] of the configuration");
            return Some(("RuntimeClassUnknown", message));
        }
        let Some(place) = self.shared.home(home) else {
            return Some(("BackendUnavailable", "no configured backend can be reached".to_owned()));
        };
        let unseen = self.unseen().map(|unseen| (unseen, ", where the pod may still run"));
        let (away, role) = unseen.unwrap_or((place, ""));
        let (name, latest) = (&away.backend.name, away.observer.latest());
        let doubt = match self.places.lost.get(name) {
            Some(Lost::Doubtful(doubt)) => format!("; the pod is not moved to another backend: {doubt}"),
            _ => String::new(),
        };
        match (&latest.error, latest.seen) {
            (Some(error), _) => {
                let message = format!("backend {name}{role}: {error} (since {:.0}){doubt}", latest.since.wall);
                Some(("BackendUnavailable", message))
            }
            (None, false) => Some(("BackendUnavailable", format!("backend {name}{role} has not answered yet"))),
            (None, true) => None,
        }
    }
}
