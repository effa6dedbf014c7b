//! Which backend a pod belongs on, and what is to be done while that one is away.
//!
//! A pod stays where it runs until its configuration moves it, or its backend is gone: then another takes it, if that is
//! wanted (`failover`) and none of its processes is left. Without that certainty it waits (I1).

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use stanchion_pod::{Pod, PodUid, RestartPolicy, Revision};
use stanchion_runtime::{ContainerInfo, ContainerState, OnReturn, Runtime};
use tokio::time::Instant;

use super::Worker;
use crate::{
    clock::{after, instant},
    config::DefaultBackend,
    desired::DesiredPod,
    events::Subject,
    files::Place,
    node::Home,
    observe::Remains,
};

/// How often a pod that may still be alive on a lost backend is looked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// How a container has ended that could not be started (R-TERM-8).
const UNSTARTED: i32 = 128;

/// What a worker knows of its pod's places.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Backends where this agent or one before it put the pod: until they have been seen it may run there.
    lived_on: BTreeSet<String>,
    /// Where a pod of the default backend was put, when that is "auto".
    auto: Option<String>,
    /// Where the pod runs in place of the backend that it belongs on.
    refuge: Option<Refuge>,
    /// Backends that are away, with no process of the pod left; and why not, where one is not given up yet.
    lost: BTreeMap<String, Lost>,
}

/// A revision that runs elsewhere than where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refuge {
    revision: Revision,
    instead_of: String,
    backend: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Lost {
    /// Nothing of the pod lives there.
    Dead,
    /// Something may; in words.
    Doubtful(String),
}

impl Places {
    /// Takes over what earlier agents wrote down.
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
    /// The backend where a pod belongs, or what has taken its place.
    pub(super) fn home_name(&mut self, pod: Option<&Pod>) -> String {
        let own = self.own_home(pod);
        let refuge = self.places.refuge.as_ref().filter(|refuge| refuge.instead_of == own);
        match refuge.filter(|refuge| pod.is_some_and(|pod| pod.revision == refuge.revision)) {
            Some(refuge) => refuge.backend.clone(),
            None => own,
        }
    }

    /// The backend that the configuration gives a pod.
    fn own_home(&mut self, pod: Option<&Pod>) -> String {
        let named = pod.and_then(|pod| pod.runtime_class.as_deref());
        if let Some(class) = named {
            return self.shared.config.runtime_classes.get(class).cloned().unwrap_or_default();
        }
        match &self.shared.config.default_backend {
            DefaultBackend::Named(name) => name.clone(),
            // A pod stays where it was put first, as long as this agent lives.
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

    /// What a pod that runs on `backend` runs in place of.
    pub(super) fn instead_of(&self, revision: &Revision, backend: &str) -> Option<String> {
        let refuge = self.places.refuge.as_ref()?;
        (refuge.revision == *revision && refuge.backend == backend).then(|| refuge.instead_of.clone())
    }

    /// What is seen of the pod, by backend. What is known to be dead on a backend that is away is not seen.
    pub(super) fn remains(&self) -> Vec<(String, Arc<Remains>)> {
        let of = |home: &Home<R>| {
            let latest = home.observer.latest();
            let is_dead = !latest.is_current() && self.places.is_dead_on(&home.backend.name);
            let remains = latest.pods.get(&self.key).filter(|_| !is_dead)?;
            Some((home.backend.name.clone(), self.with_unstarted(remains)))
        };
        self.shared.homes.iter().filter_map(of).collect()
    }

    /// What could not be started has ended, though its runtime knows it as made only (R-TERM-8).
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

    /// Whether the agent sees the backends that the next step towards a pod depends on.
    pub(super) fn is_visible(&self, home: &str, desired: Option<&DesiredPod>) -> bool {
        desired.is_none() || (self.is_seen(home) && self.unseen().is_none())
    }

    /// Whether a backend is there and shows how things are.
    pub(super) fn is_seen(&self, backend: &str) -> bool {
        self.shared.home(backend).is_some_and(|home| home.observer.latest().is_current())
    }

    /// Ends once a backend cannot be seen any more: what it was asked may never be answered.
    pub(super) fn until_away(&self, backend: &str) -> impl Future<Output = ()> + Send + use<R> {
        let looks = self.shared.home(backend).map(|home| home.observer.watch());
        async move {
            let Some(mut looks) = looks else { return future::pending().await };
            if looks.wait_for(|latest| !latest.is_current()).await.is_err() {
                future::pending::<()>().await;
            }
        }
    }

    /// Whether a pod of which nothing is seen is gone: every backend where it can be says so, or is known to be dead.
    pub(super) fn is_gone(&mut self) -> bool {
        let pod = self.last.as_ref().map(|last| Arc::clone(&last.pod));
        let own = self.own_home(pod.as_deref());
        let mut homes = self.shared.homes.iter().filter(|home| self.may_live_on(home, &own)).peekable();
        // Without any it has been nowhere, or nothing can be said yet.
        let is_anywhere = homes.peek().is_some() || self.places.is_dead_on(&own);
        // A class that is not configured leads nowhere.
        let is_homeless = own.is_empty() && pod.is_some_and(|pod| pod.runtime_class.is_some());
        (is_anywhere || is_homeless) && homes.all(|home| home.observer.latest().is_current())
    }

    /// Notes that the pod is about to be put on a backend.
    pub(super) fn settle_on(&mut self, backend: &str) {
        self.places.lived_on.insert(backend.to_owned());
    }

    /// Forgets a backend that has confirmed that it has nothing of the pod any more: whether it hangs later is not the
    /// pod's concern.
    pub(super) fn leave(&mut self, backend: &str) {
        let latest = self.shared.home(backend).map(|home| home.observer.latest());
        if latest.is_some_and(|latest| latest.is_current() && !latest.pods.contains_key(&self.key)) {
            self.places.lived_on.remove(backend);
        }
    }

    /// A backend where the pod may run that has not been seen since the agent started (I1).
    fn unseen(&self) -> Option<&Home<R>> {
        let places = &self.places;
        let may_live = |name: &String| places.lived_on.contains(name) && !places.is_dead_on(name);
        let is_unseen = |home: &&Home<R>| !home.observer.latest().seen && may_live(&home.backend.name);
        self.shared.homes.iter().find(is_unseen)
    }

    /// Gives up backends that are gone, and finds another for the pod. The answer is when to ask again.
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

    /// Forgets what was lost where it is back, and leaves the refuge if that is wanted then.
    fn go_home(&mut self, own: &str) {
        let is_back = |name: &str| self.shared.home(name).is_some_and(|home| home.observer.latest().is_current());
        self.places.lost.retain(|name, _| !is_back(name));
        let migrates =
            self.shared.home(own).and_then(Home::failover).is_some_and(|it| it.on_return == OnReturn::Migrate);
        if migrates && is_back(own) && self.places.refuge.take_if(|refuge| refuge.instead_of == own).is_some() {
            // Which images are there is another question.
            self.history.forget_images();
            let message = format!("Backend {own} is back; the pod moves there again");
            self.shared.events.normal(&Subject::pod(&self.key), "Returning", message);
        }
    }

    /// Whether the pod may be on a backend: it belongs there, was put there, or was seen there; and is not known to be dead.
    fn may_live_on(&self, home: &Home<R>, own: &str) -> bool {
        let name = &home.backend.name;
        let was_there = self.places.lived_on.contains(name) || home.observer.latest().pods.contains_key(&self.key);
        (name == own || was_there) && !self.places.is_dead_on(name)
    }

    /// Gives a backend up if that is wanted, it has been away for long enough, and none of the pod's processes is left.
    async fn give_up(&mut self, name: &str) -> Option<Instant> {
        let home = self.shared.home(name)?;
        let (failover, latest) = (home.failover()?, home.observer.latest());
        // One that hangs may do at any time what it was told.
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

    /// Whether the pod was put on backends, all of which show how things are.
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

    /// Puts the pod on the first backend that works. One that names its backend waits for it, and so does one that may
    /// have done all it was to do: only its backend knows.
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
        // What stood there is dead.
        self.running = self.running.take().filter(|running| running.backend != own);
        let (revision, instead_of) = (pod.revision.clone(), own.to_owned());
        self.places.refuge = Some(Refuge { revision, instead_of, backend });
    }

    /// Why nothing can be done for the pod now.
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
