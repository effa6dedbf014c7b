//! Observer of one backend: keeps the latest observation of its sandboxes and containers.

mod observation;
mod subscription;
mod watcher;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use stanchion_board::{Board, EventLog};
use stanchion_plan::time::Backoff;
use stanchion_pod::PodKey;
use stanchion_runtime::{PodName, Runtime, Version};
use tokio::sync::watch;

pub use observation::Observation;
pub(crate) use watcher::Watcher;

use crate::{backends::Backend, clock::Clock};

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
