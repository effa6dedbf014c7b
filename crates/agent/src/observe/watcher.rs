//! Task of an [`Observer`](super::Observer): lists the backend's sandboxes and containers at events, at requests and
//! at intervals.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use stanchion_board::{Board, EventLog, Subject, view::BackendView};
use stanchion_plan::mutant::{self, Mutant};
use stanchion_pod::PodKey;
use stanchion_runtime::{ErrorKind, EventKind, Health, Inventory, Runtime, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Observation, Observer, PERIOD, RETRY,
    subscription::{Subscription, Trigger},
};
use crate::{
    backends::{Backend, BackendInfo, Opened},
    clock::{Clock, elapsed, instant, sleep_until},
};

/// Task of an [`Observer`].
#[derive(Debug)]
pub(crate) struct Watcher<R> {
    pub(super) backend: Backend<R>,
    pub(super) clock: Clock,
    pub(super) board: Arc<Board>,
    pub(super) events: Arc<EventLog>,
    pub(super) tickets: watch::Receiver<u64>,
    /// Observer that the task serves.
    pub(super) observer: Observer,
}

impl<R: Runtime> Watcher<R> {
    /// Observes the backend until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        if let Some(runtime) = shutdown.run_until_cancelled(self.opened()).await.flatten() {
            shutdown.run_until_cancelled(self.watch(&runtime)).await;
        }
    }

    /// Waits until the backend is open. Meanwhile shows why it is not.
    async fn opened(&mut self) -> Option<Arc<R>> {
        loop {
            let reason = match &*self.backend.opened.borrow_and_update() {
                Opened::Yes { runtime, .. } => return Some(Arc::clone(runtime)),
                Opened::No { reason } => reason.clone(),
            };
            self.publish_failure(&reason, true, Arc::default());
            self.show(None);
            self.backend.opened.changed().await.ok()?;
        }
    }

    async fn watch(&mut self, runtime: &Arc<R>) {
        let mut subscription = Subscription::new();
        let mut retry = Duration::ZERO;
        let mut version = None;
        loop {
            let begun = instant();
            if !self.observe(runtime, &mut version).await {
                // *Cancel-safe:* it holds nothing. Requests do not shorten it: the runtime is away.
                retry = RETRY.after(retry);
                tokio::time::sleep(retry).await;
                continue;
            }
            retry = Duration::ZERO;
            let pause = pause_after(begun);
            if !self.observe_pods(runtime, &mut subscription).await {
                return;
            }
            sleep_until(pause).await;
            subscription.forget_pending();
        }
    }

    /// Makes a full observation and publishes it. Returns whether it succeeded. `version` is that of the runtime, as
    /// last shown.
    async fn observe(&mut self, runtime: &Arc<R>, version: &mut Option<Version>) -> bool {
        let ticket = *self.tickets.borrow_and_update();
        let number = self.observer.next_number();
        let listed = runtime.list().await;
        let health = self.health(runtime).await;
        let has_new_health = self.observer.latest.borrow().health != health;
        match listed {
            Ok(inventory) => {
                self.publish(inventory, ticket, number, health);
                if version.is_none() || has_new_health {
                    *version = self.version(runtime).await;
                    self.observer.name(version.as_ref());
                    self.show(version.as_ref());
                }
                true
            }
            Err(error) => {
                self.publish_failure(&error.chain(), error.kind() == ErrorKind::Unavailable, health);
                self.show(version.as_ref());
                *version = None;
                false
            }
        }
    }

    /// Observes the pods of events until a full observation is due. Returns `false` once no observer is left.
    async fn observe_pods(&mut self, runtime: &Arc<R>, subscription: &mut Subscription) -> bool {
        let rest = instant() + PERIOD;
        loop {
            let trigger = tokio::select! {
                // *Cancel-safe:* all three only wait.
                changed = self.tickets.changed() => match changed {
                    Ok(()) => Trigger::Anything,
                    Err(_) => return false,
                },
                trigger = subscription.next(runtime) => trigger,
                () = sleep_until(rest) => Trigger::Anything,
            };
            let Trigger::Events(events) = trigger else { return true };
            let Some(pods) = self.changed_pods(&events) else { return true };
            let begun = instant();
            let observed = join_all(pods.iter().map(|pod| self.observer.observe_pod(&**runtime, pod))).await;
            if observed.contains(&false) {
                return true;
            }
            sleep_until(pause_after(begun)).await;
        }
    }

    /// Returns the pods of these events; `None` if only a full observation can tell what changed.
    fn changed_pods(&self, events: &[EventKind]) -> Option<HashSet<PodKey>> {
        let latest = self.observer.latest.borrow();
        let mut pods = HashSet::new();
        for event in events {
            match event {
                // If the container is unknown, a worker has just started it, and will observe it.
                EventKind::Started { container } => pods.extend(latest.pod_of(container).cloned()),
                EventKind::Exited { container } | EventKind::OutOfMemory { container } => {
                    pods.insert(latest.pod_of(container)?.clone());
                }
                _ => return None,
            }
        }
        Some(pods)
    }

    async fn version(&self, runtime: &Arc<R>) -> Option<Version> {
        match runtime.version().await {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::debug!(error = error.chain(), "asking for the version failed");
                None
            }
        }
    }

    /// Returns the health that the backend reports, or the last one if it does not answer.
    async fn health(&self, runtime: &Arc<R>) -> Arc<Health> {
        let last = Arc::clone(&self.observer.latest.borrow().health);
        match runtime.health().await {
            Ok(health) => {
                if last.state != health.state {
                    let text = format!("{}: {}", health.state, health.message);
                    self.events.normal(&Subject::backend(&self.backend.name), "BackendState", text);
                }
                if *last == health { last } else { Arc::new(health) }
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "asking for the health failed");
                last
            }
        }
    }

    fn recovered(&self) {
        if self.observer.latest.borrow().error.is_some() {
            self.events.normal(&Subject::backend(&self.backend.name), "BackendReady", "The backend answers");
        }
    }

    fn publish(&self, inventory: Inventory, ticket: u64, number: u64, health: Arc<Health>) {
        let last = self.observer.latest.borrow().clone();
        let since = if last.is_current() { last.since } else { self.clock.stamp() };
        let observation = Observation::of(inventory, ticket, since);
        let observation = observation.with_health(health).with_runtime(Arc::clone(&last.runtime));
        self.recovered();
        self.observer.latest.send_modify(|latest| *latest = Arc::new(observation.after(latest, number)));
    }

    fn publish_failure(&self, error: &str, is_absent: bool, health: Arc<Health>) {
        let last = self.observer.latest.borrow().clone();
        if last.error.as_deref() != Some(error) {
            self.events.warning(&Subject::backend(&self.backend.name), "BackendUnavailable", error);
        }
        let ticket = *self.tickets.borrow();
        let failed = last.failed(error, is_absent, ticket, self.clock.stamp()).with_health(health);
        self.observer.latest.send_replace(Arc::new(failed));
    }

    fn show(&self, version: Option<&Version>) {
        let info = match &*self.backend.opened.borrow() {
            Opened::Yes { info, .. } => info.clone(),
            Opened::No { .. } => BackendInfo::default(),
        };
        let latest = self.observer.latest.borrow();
        self.board.set_backend(BackendView {
            name: self.backend.name.clone(),
            library: info.library,
            version: info.version,
            abi: info.abi,
            runtime: version.map(|version| version.runtime.clone()).unwrap_or_default(),
            runtime_version: version.map(|version| version.runtime_version.clone()).unwrap_or_default(),
            error: latest.error.clone(),
            health: (*latest.health).clone(),
            since: Some(latest.since.wall),
            pods: 0,
            capabilities: version.map(|version| version.capabilities).unwrap_or_default(),
        });
    }
}

/// Returns the end of the pause after an observation that began at `begun` and ends now. The pause is as long as the
/// observation, so that a burst of events does not starve other work, but has a limit for an observation that hung.
fn pause_after(begun: Instant) -> Instant {
    let longest = if mutant::is_on(Mutant::PausesLong) { Duration::MAX } else { PERIOD };
    instant() + elapsed(begun).min(longest)
}
