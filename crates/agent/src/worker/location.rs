//! The worker's side of a pod's placement: its observations of the backends, and the steps from one backend to another.
//! [`place()`](stanchion_plan::place) decides.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_plan::{
    history::History,
    mutant::{self, Mutant},
    observed::{Observed, ObservedPod},
    place::{ObservedBackend, Place, Placement, Rules, Step, place},
    reason::{Explanation, Reason},
};
use stanchion_pod::{Pod, PodKey, PodUid};
use stanchion_runtime::{ContainerInfo, ContainerState, Runtime};

use super::{context::Context, recall::Recall, unowned::Unowned};
use crate::{clock::instant, config::AgentConfig, files, node::BackendSlot, shared::Shared};

/// Exit code of a container that could not be started (R-TERM-8).
const UNSTARTED: i32 = 128;

/// Location of a pod: the backends that it belongs on or may be on, and processes of it that no backend knows.
#[derive(Debug)]
pub(super) struct Location {
    placement: Placement,
    unowned: Unowned,
}

impl Location {
    /// Makes the location of a pod. `recorded` names the backends that earlier agents put it on.
    pub fn recorded(recorded: &[files::RecordedBackend]) -> Self {
        let records = recorded.iter().map(|it| (&*it.backend, &*it.revision, it.instead_of.as_deref()));
        Self { placement: Placement::recorded(records), unowned: Unowned::default() }
    }

    /// Performs the pod's steps from backend to backend until none is due. Returns the time to check again.
    pub async fn settle<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: Option<&Pod>,
        uids: &BTreeSet<PodUid>,
        recall: &mut Recall,
        history: &mut History,
    ) -> Option<Instant> {
        loop {
            let place = self.place(context, pod);
            let Some(step) = place.step else { return place.wake_at };
            if !matches!(step, Step::Search { .. }) {
                // The other backend may have other images.
                history.forget_images();
            }
            self.perform(context, step, pod, uids, recall).await;
        }
    }

    /// Decides where the pod runs, from the latest observations, and keeps the backend that `auto` chooses.
    pub fn place<R: Runtime>(&mut self, context: &Context<R>, pod: Option<&Pod>) -> Place {
        let (rules, backends) = (rules(&context.shared), observed_backends(&context.shared, &context.key));
        self.placement.update(pod, rules, &backends);
        place(pod, rules, &backends, &self.placement, instant())
    }

    async fn perform<R: Runtime>(
        &mut self,
        context: &Context<R>,
        step: Step,
        pod: Option<&Pod>,
        uids: &BTreeSet<PodUid>,
        recall: &mut Recall,
    ) {
        match step {
            Step::Search { backend } => {
                let since = context.shared.slot(&backend).map(|slot| slot.observer.latest().since.wall);
                let is_ignored = mutant::is_on(Mutant::MovesWithProcesses);
                let alive = match context.shared.processes.any_of(uids).await {
                    Ok(found) if found.is_none() || is_ignored => None,
                    Ok(_) => Some("its processes there still run".to_owned()),
                    Err(error) => Some(format!("cannot check whether its processes there still run: {error}")),
                };
                if alive.is_none() {
                    let since = since.unwrap_or_default();
                    let message = format!("Backend {backend} is away since {since}, and nothing of the pod runs");
                    context.warn("BackendLost", message);
                }
                self.placement.searched(&backend, alive, instant());
            }
            Step::FailOver { from, to } => {
                context.warn("FailedOver", format!("Backend {from} is away; the pod runs on {to} instead"));
                recall.forget_on(&from);
                if let Some(pod) = pod {
                    self.placement.fall_back(&pod.revision, &from, &to);
                }
            }
            Step::Return { to } => {
                let message = format!("Backend {to} is back; the pod moves there again");
                context.events().normal(&context.subject(), "Returning", message);
                self.placement.leave_fallback();
            }
            Step::LeaveFallback => self.placement.leave_fallback(),
        }
    }

    /// Searches for processes of the pod that no backend knows. Returns the time to search again.
    pub async fn search<R: Runtime>(
        &mut self,
        context: &Context<R>,
        observed: &Observed,
        uids: &BTreeSet<PodUid>,
    ) -> Option<Instant> {
        let backends = observed_backends(&context.shared, &context.key);
        let has_vanished = observed.is_empty() && self.placement.is_all_observed(&backends);
        self.unowned.search(has_vanished, &context.shared.processes, uids).await
    }

    /// Records that the pod is about to be put on a backend.
    pub fn put_on(&mut self, backend: &str) {
        self.placement.put_on(backend);
    }

    /// Forgets a backend that confirms that nothing of the pod is left there.
    pub fn forget_if_gone<R: Runtime>(&mut self, context: &Context<R>, backend: &str) {
        let backends = observed_backends(&context.shared, &context.key);
        backends
            .iter()
            .filter(|observed| observed.name == backend)
            .for_each(|observed| self.placement.forget_if_gone(observed));
    }

    /// Returns the backend that the pod must run on: its own or the fallback.
    pub fn backend<R: Runtime>(&self, context: &Context<R>, pod: Option<&Pod>) -> String {
        let backends = observed_backends(&context.shared, &context.key);
        self.placement.backend(pod, &self.placement.own(pod, rules(&context.shared), &backends))
    }

    /// Returns the backend that this revision of the pod belongs on while it runs on `backend` as its fallback.
    pub fn instead_of(&self, pod: &Pod, backend: &str) -> Option<&str> {
        self.placement.instead_of(&pod.revision, backend)
    }

    /// Returns the observed sandboxes and containers of the pod, without those on backends that are given up.
    pub fn observed<R: Runtime>(&self, context: &Context<R>, history: &History) -> Observed {
        let of = |slot: &BackendSlot<R>| {
            let latest = slot.observer.latest();
            let is_given_up = !latest.is_current() && self.placement.is_given_up(&slot.backend.name);
            let pod = latest.pods.get(&context.key).filter(|_| !is_given_up)?;
            Some((slot.backend.name.clone(), with_unstarted(pod, history)))
        };
        context.shared.slots.iter().filter_map(of).collect()
    }

    /// Returns whether the worker may act for the pod on `backend`: the agent observes all backends that the next step
    /// depends on, and every process of the pod is known to a backend.
    pub fn is_clear<R: Runtime>(&self, context: &Context<R>, backend: &str, is_wanted: bool) -> bool {
        let is_visible = || self.placement.is_visible(backend, &observed_backends(&context.shared, &context.key));
        (!is_wanted || is_visible()) && self.unowned.why().is_none()
    }

    /// Returns whether a pod without sandboxes and containers is gone: every backend where it may be confirms that, or
    /// has been given up. `pod` is its last known manifest.
    pub fn is_gone<R: Runtime>(&self, context: &Context<R>, pod: Option<&Pod>) -> bool {
        self.placement.is_gone(pod, rules(&context.shared), &observed_backends(&context.shared, &context.key))
    }

    /// Returns reason and message if nothing can be done for the pod now.
    pub fn obstacle<R: Runtime>(&self, context: &Context<R>, backend: &str, pod: &Pod) -> Option<Explanation> {
        if let Some(why) = self.unowned.why() {
            return Some(Explanation::new(Reason::ProcessesLeft, why));
        }
        if let Some(class) = pod.runtime_class.as_deref().filter(|_| backend.is_empty()) {
            let message = format!("runtimeClassName {class:?} is not named in [runtime_classes] of the configuration");
            return Some(Explanation::new(Reason::RuntimeClassUnknown, message));
        }
        let obstacle = self.placement.obstacle(backend, &observed_backends(&context.shared, &context.key));
        obstacle.map(|message| Explanation::new(Reason::BackendUnavailable, message))
    }
}

/// Turns a created container that could not be started into an exited one (R-TERM-8).
fn with_unstarted(pod: &Arc<ObservedPod>, history: &History) -> Arc<ObservedPod> {
    let unstarted = |it: &ContainerInfo| history.unstarted(&it.id).filter(|_| it.state == ContainerState::Created);
    let mut pod = Arc::clone(pod);
    if pod.containers.iter().any(|it| unstarted(it).is_some()) {
        for container in &mut Arc::make_mut(&mut pod).containers {
            let Some(why) = unstarted(container) else { continue };
            let (code, started_at, finished_at) = (Some(UNSTARTED), Some(Timestamp::UNIX_EPOCH), Some(why.at));
            container.state = ContainerState::Exited { code, started_at, finished_at, oom_killed: false };
        }
    }
    pod
}

/// Returns the part of the configuration that gives pods their backends.
fn rules<R>(shared: &Shared<R>) -> Rules<'_> {
    let AgentConfig { runtime_classes, default_backend, .. } = &shared.config;
    Rules { runtime_classes, default_backend }
}

/// Returns the latest observations of all backends, as far as they concern the pod of this key.
fn observed_backends<'a, R>(shared: &'a Shared<R>, key: &PodKey) -> Vec<ObservedBackend<'a>> {
    let observed = |slot: &'a BackendSlot<R>| {
        let latest = slot.observer.latest();
        let lasts = || shared.clock.stamp().since(latest.since);
        ObservedBackend {
            name: &slot.backend.name,
            was_observed: latest.was_observed,
            error: latest.error.clone(),
            is_absent: latest.is_absent,
            since: latest.since.wall,
            lasts: if latest.is_current() { Duration::ZERO } else { lasts() },
            has_pod: latest.pods.contains_key(key),
            failover: slot.failover(),
        }
    };
    shared.slots.iter().map(observed).collect()
}
