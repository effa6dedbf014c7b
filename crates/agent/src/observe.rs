//! Observer of one backend: keeps the latest observation of its sandboxes and containers.

mod observation;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, Stream, StreamExt, future::join_all};
use stanchion_board::{Board, EventLog, Subject, view::BackendView};
use stanchion_plan::{
    mutant::{self, Mutant},
    time::Backoff,
};
use stanchion_pod::PodKey;
use stanchion_runtime::{Error, ErrorKind, Event, EventKind, Health, PodName, Runtime, Version};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use observation::Observation;

use crate::{
    backends::{Backend, Opened},
    clock::{Clock, elapsed, instant, sleep_until},
};

/// Interval of observations without an event, in case events are lost.
const PERIOD: Duration = Duration::from_secs(30);
/// Waits after failed observations.
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// Handle that requests observations of a backend and reads them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Observer {
    tickets: watch::Sender<u64>,
    latest: watch::Sender<Arc<Observation>>,
    /// Number of observations begun. Of two at the same time, the later one counts.
    begun: Arc<AtomicU64>,
}

impl Observer {
    /// Returns the latest observation.
    #[must_use]
    pub fn latest(&self) -> Arc<Observation> {
        Arc::clone(&self.latest.borrow())
    }

    /// Returns a receiver that changes with every observation.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Observation>> {
        self.latest.subscribe()
    }

    /// Stores the name of the runtime.
    fn name(&self, version: Option<&Version>) {
        self.latest.send_if_modified(|latest| {
            let name = version.map(|version| version.runtime.as_str()).filter(|name| *name != &*latest.runtime);
            let Some(name) = name else { return false };
            *latest = Arc::new((**latest).clone().with_runtime(name.into()));
            true
        });
    }

    /// Waits for an observation that begins after this call, or for a failed one that ends after it. Simultaneous
    /// callers share one.
    ///
    /// *Cancel-safe:* the observation happens anyway.
    pub async fn observe(&self) -> Arc<Observation> {
        let mut ticket = 0;
        self.tickets.send_modify(|tickets| {
            *tickets += 1;
            ticket = *tickets;
        });
        let mut latest = self.latest.subscribe();
        match latest.wait_for(|observation| observation.ticket >= ticket).await {
            Ok(observation) => Arc::clone(&observation),
            // The observer has stopped with the agent.
            Err(_) => Arc::clone(&self.latest.borrow()),
        }
    }

    /// Observes one pod, at a fraction of the cost of a full observation. Returns whether that succeeded; if not, the
    /// caller requests a full one, which reports the error.
    pub(crate) async fn observe_pod<R: Runtime>(&self, runtime: &R, key: &PodKey) -> bool {
        let number = self.next_number();
        let pod = PodName { namespace: key.namespace.clone(), name: key.name.clone() };
        let Ok(inventory) = runtime.list_pod(pod).await else { return false };
        self.latest.send_if_modified(|latest| {
            let now = latest.is_current().then(|| latest.with_pod(key, inventory, number)).flatten();
            let has_changed = now.is_some();
            now.into_iter().for_each(|now| *latest = Arc::new(now));
            has_changed
        });
        true
    }

    fn next_number(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Task of an [`Observer`].
#[derive(Debug)]
pub(crate) struct Watcher<R> {
    backend: Backend<R>,
    clock: Clock,
    board: Arc<Board>,
    events: Arc<EventLog>,
    tickets: watch::Receiver<u64>,
    /// Observer that the task serves.
    observer: Observer,
}

/// Makes an observer of `backend`, and its task, which the caller must run.
pub(crate) fn observer<R: Runtime>(
    backend: Backend<R>,
    clock: Clock,
    board: Arc<Board>,
    events: Arc<EventLog>,
) -> (Observer, Watcher<R>) {
    let (tickets, wanted) = watch::channel(0);
    let latest = watch::Sender::new(Arc::new(Observation::none(clock.stamp())));
    let observer = Observer { tickets, latest, begun: Arc::default() };
    (observer.clone(), Watcher { backend, clock, board, events, tickets: wanted, observer })
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
        let mut version: Option<Version> = None;
        loop {
            let begun = instant();
            let ticket = *self.tickets.borrow_and_update();
            let number = self.observer.next_number();
            let listed = runtime.list().await;
            let health = self.health(runtime).await;
            let has_new_health = self.observer.latest.borrow().health != health;
            match listed {
                Ok(inventory) => {
                    retry = Duration::ZERO;
                    let since = Some(self.observer.latest.borrow().since)
                        .filter(|_| self.observer.latest.borrow().is_current());
                    let observation = Observation::of(inventory, ticket, since.unwrap_or_else(|| self.clock.stamp()));
                    let name = Arc::clone(&self.observer.latest.borrow().runtime);
                    let observation = observation.with_health(health).with_runtime(name);
                    self.recovered();
                    self.observer.latest.send_modify(|latest| *latest = Arc::new(observation.after(latest, number)));
                    if version.is_none() || has_new_health {
                        version = self.version(runtime).await;
                        self.observer.name(version.as_ref());
                        self.show(version.as_ref());
                    }
                }
                Err(error) => {
                    self.publish_failure(&error.chain(), error.kind() == ErrorKind::Unavailable, health);
                    self.show(version.as_ref());
                    version = None;
                    // *Cancel-safe:* it holds nothing. Requests do not shorten it: the runtime is away.
                    retry = RETRY.after(retry);
                    tokio::time::sleep(retry).await;
                    continue;
                }
            }
            let pause = pause_after(begun);
            let rest = instant() + PERIOD;
            loop {
                let happened = tokio::select! {
                    // *Cancel-safe:* all three only wait.
                    changed = self.tickets.changed() => if changed.is_err() { return } else { Trigger::Anything },
                    happened = subscription.next(runtime) => happened,
                    () = sleep_until(rest) => Trigger::Anything,
                };
                let Trigger::Events(events) = happened else { break };
                let Some(pods) = self.changed_pods(&events) else { break };
                let begun = instant();
                let observed = join_all(pods.iter().map(|pod| self.observer.observe_pod(&**runtime, pod))).await;
                if observed.contains(&false) {
                    break;
                }
                sleep_until(pause_after(begun)).await;
            }
            sleep_until(pause).await;
            subscription.forget_pending();
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
            Opened::No { .. } => crate::backends::BackendInfo::default(),
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

/// Reason for an observation.
enum Trigger {
    /// Events of the backend.
    Events(Vec<EventKind>),
    /// A request, the interval, or a broken subscription.
    Anything,
}

type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Event, Error>> + Send>>;

/// Subscription to a backend's events. It is renewed when it breaks.
struct Subscription {
    stream: Option<Events>,
    /// Wait before the latest renewal; zero after an event.
    retry: Duration,
    /// Time of the renewal, after the end of the stream.
    renew_at: Option<Instant>,
}

impl Subscription {
    fn new() -> Self {
        Self { stream: None, retry: Duration::ZERO, renew_at: None }
    }

    /// Waits for the next event, or until the subscription must be renewed.
    ///
    /// *Cancel-safe:* the stream keeps its events, and the renewal keeps its time.
    async fn next<R: Runtime>(&mut self, runtime: &Arc<R>) -> Trigger {
        if self.renew_at.is_none() {
            let stream = self.stream.get_or_insert_with(|| Box::pin(runtime.events().fuse()));
            match stream.next().await {
                Some(Ok(event)) => {
                    self.retry = Duration::ZERO;
                    let mut events = vec![event.kind];
                    while let Some(Some(Ok(event))) = stream.next().now_or_never() {
                        events.push(event.kind);
                    }
                    return Trigger::Events(events);
                }
                Some(Err(error)) => tracing::debug!(error = error.chain(), "the event stream ended"),
                None => {}
            }
        }
        let retry = RETRY.after(self.retry);
        sleep_until(*self.renew_at.get_or_insert_with(|| instant() + retry)).await;
        self.retry = retry;
        (self.stream, self.renew_at) = (None, None);
        Trigger::Anything
    }

    /// Drops the pending events: the next observation covers them.
    fn forget_pending(&mut self) {
        while let Some(Some(Some(Ok(_)))) = self.stream.as_mut().map(|stream| stream.next().now_or_never()) {}
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use stanchion_runtime::testing::{FakeRuntime, Method};
    use tokio::time::timeout;

    use super::{RETRY, Subscription, Trigger};

    #[tokio::test(start_paused = true)]
    async fn a_subscription_is_renewed_although_requests_interrupt_every_wait_for_it() {
        let runtime = Arc::new(FakeRuntime::new());
        let mut subscription = Subscription::new();
        assert!(matches!(subscription.next(&runtime).await, Trigger::Events(_)));
        runtime.break_events();
        for _ in 0..20 {
            timeout(RETRY.first / 4, subscription.next(&runtime)).await.ok();
        }
        assert_eq!((runtime.count(Method::Events), runtime.subscribers()), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn subscriptions_that_fail_are_renewed_ever_more_rarely() {
        let runtime = Arc::new(FakeRuntime::new());
        runtime.set_available(false);
        let mut subscription = Subscription::new();
        let ask = async {
            loop {
                timeout(RETRY.first, subscription.next(&runtime)).await.ok();
            }
        };
        timeout(Duration::from_secs(60), ask).await.expect_err("it never ends");
        assert!((10..20).contains(&runtime.count(Method::Events)), "{}", runtime.count(Method::Events));
    }
}
