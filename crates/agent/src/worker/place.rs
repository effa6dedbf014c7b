//! The worker's side of a pod's placement: what it sees of the backends, and the steps from one to another.
//! [`place()`](stanchion_plan::place) decides.

use std::{
    collections::BTreeSet,
    future,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_board::Subject;
use stanchion_plan::{
    observed::Remains,
    place::{Place, Rules, Sight, Step, place},
    reason::{Because, Reason},
};
use stanchion_pod::{Pod, PodKey, PodUid};
use stanchion_runtime::{ContainerInfo, ContainerState, Runtime};

use super::Worker;
use crate::{clock::instant, config::AgentConfig, desired::DesiredPod, node::Home, shared::Shared};

/// Exit code of a container that could not be started (R-TERM-8).
const UNSTARTED: i32 = 128;

impl<R: Runtime> Worker<R> {
    /// Makes the pod's steps from backend to backend until none is due. Returns when to check again.
    pub(super) async fn settle(&mut self, desired: Option<&DesiredPod>) -> Option<Instant> {
        let pod = desired.map(|desired| &*desired.pod);
        loop {
            let place = self.place(pod);
            let Some(step) = place.step else { return place.wake_at };
            self.take_step(step, pod).await;
        }
    }

    /// Decides where the pod runs, by the latest observations. A backend that is chosen stays chosen from here on.
    pub(super) fn place(&mut self, pod: Option<&Pod>) -> Place {
        let (rules, sights) = (rules(&self.shared), sights(&self.shared, &self.key));
        self.placement.see(pod, rules, &sights);
        place(pod, rules, &sights, &self.placement, instant())
    }

    async fn take_step(&mut self, step: Step, pod: Option<&Pod>) {
        let subject = Subject::pod(&self.key);
        match step {
            Step::Search { backend } => {
                let since =
                    self.shared.home(&backend).map(|home| home.observer.latest().since.wall).unwrap_or_default();
                let alive = match self.shared.survivors.any_of(&self.known_uids()).await {
                    Ok(None) => None,
                    Ok(Some(_)) => Some("its processes there still run".to_owned()),
                    Err(error) => Some(format!("cannot check whether its processes there still run: {error}")),
                };
                if alive.is_none() {
                    let message = format!("Backend {backend} is away since {since}, and nothing of the pod runs");
                    self.shared.events.warning(&subject, "BackendLost", message);
                }
                self.placement.searched(&backend, alive, instant());
            }
            Step::FailOver { from, to } => {
                let message = format!("Backend {from} is away; the pod runs on {to} instead");
                self.shared.events.warning(&subject, "FailedOver", message);
                // The other backend may have other images.
                self.history.forget_images();
                // Nothing of the pod runs on its own backend any more.
                self.running = self.running.take().filter(|running| running.backend != from);
                if let Some(pod) = pod {
                    self.placement.fall_back(&pod.revision, &from, &to);
                }
            }
            Step::Return { to } => {
                self.history.forget_images();
                let message = format!("Backend {to} is back; the pod moves there again");
                self.shared.events.normal(&subject, "Returning", message);
                self.placement.leave_fallback();
            }
            Step::LeaveFallback => {
                self.history.forget_images();
                self.placement.leave_fallback();
            }
        }
    }

    fn sights(&self) -> Vec<Sight<'_>> {
        sights(&self.shared, &self.key)
    }

    /// Returns the backend that the pod must run on: its own or the fallback.
    pub(super) fn backend(&self, pod: Option<&Pod>) -> String {
        let own = self.placement.own(pod, rules(&self.shared), &self.sights());
        self.placement.backend(pod, &own)
    }

    /// Returns the observed sandboxes and containers of the pod, by backend. Leaves out backends that are away and
    /// given up.
    pub(super) fn remains(&self) -> Vec<(String, Arc<Remains>)> {
        let of = |home: &Home<R>| {
            let latest = home.observer.latest();
            let is_given_up = !latest.is_current() && self.placement.is_given_up(&home.backend.name);
            let remains = latest.pods.get(&self.key).filter(|_| !is_given_up)?;
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
    pub(super) fn is_visible(&self, backend: &str, desired: Option<&DesiredPod>) -> bool {
        desired.is_none() || self.placement.is_visible(backend, &self.sights())
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
    pub(super) fn is_gone(&self) -> bool {
        let pod = self.last.as_ref().map(|last| &*last.pod);
        self.placement.is_gone(pod, rules(&self.shared), &self.sights())
    }

    /// Forgets a backend that confirms that nothing of the pod is left there.
    pub(super) fn leave(&mut self, backend: &str) {
        let sights = sights(&self.shared, &self.key);
        sights.iter().filter(|sight| sight.name == backend).for_each(|sight| self.placement.leave(sight));
    }

    /// Returns whether the pod was put on backends, and all of them are observed now.
    pub(super) fn has_vanished(&self) -> bool {
        self.placement.is_all_observed(&self.sights())
    }

    pub(super) fn known_uids(&self) -> BTreeSet<PodUid> {
        let pods = [self.last.as_ref().map(|last| &last.pod), self.running.as_ref().map(|running| &running.pod)];
        let mut uids: BTreeSet<_> = pods.into_iter().flatten().map(|pod| pod.uid.clone()).collect();
        uids.extend(self.uids.iter().cloned());
        uids.extend(self.desired.borrow().as_ref().map(|desired| desired.pod.uid.clone()));
        uids
    }

    /// Returns reason and message if nothing can be done for the pod now.
    pub(super) fn obstacle(&self, backend: &str, pod: &Pod) -> Option<Because> {
        if let Some(why) = self.stray() {
            return Some(Because::new(Reason::ProcessesLeft, why));
        }
        if let Some(class) = pod.runtime_class.as_deref().filter(|_| backend.is_empty()) {
            let message = format!("runtimeClassName {class:?} is not named in [runtime_classes] of the configuration");
            return Some(Because::new(Reason::RuntimeClassUnknown, message));
        }
        self.placement
            .obstacle(backend, &self.sights())
            .map(|message| Because::new(Reason::BackendUnavailable, message))
    }
}

/// Returns what the configuration says of where pods run.
fn rules<R>(shared: &Shared<R>) -> Rules<'_> {
    let AgentConfig { runtime_classes, default_backend, .. } = &shared.config;
    Rules { runtime_classes, default_backend }
}

/// Returns the backends as they were observed last, for the pod of this key.
fn sights<'a, R>(shared: &'a Shared<R>, key: &PodKey) -> Vec<Sight<'a>> {
    let sight = |home: &'a Home<R>| {
        let latest = home.observer.latest();
        let lasts = || shared.clock.stamp().since(latest.since);
        Sight {
            name: &home.backend.name,
            was_seen: latest.seen,
            error: latest.error.clone(),
            is_absent: latest.is_absent,
            since: latest.since.wall,
            lasts: if latest.is_current() { Duration::ZERO } else { lasts() },
            has_pod: latest.pods.contains_key(key),
            failover: home.failover(),
        }
    };
    shared.homes.iter().map(sight).collect()
}
