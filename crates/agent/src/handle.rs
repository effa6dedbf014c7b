//! Handle through which the local API reaches the agent.

use std::sync::Arc;

use futures_util::future::join_all;
use stanchion_board::{
    Board, EventLog,
    view::{PruneView, RemovedView},
};
use stanchion_pod::PodKey;
use tokio::sync::{mpsc, oneshot};

use crate::{
    backends::Backend, clock::Clock, health::Heartbeat, images::Prune, node_shutdown::ShutdownState, removed::Removed,
};

/// Handle of the running agent. Cheap to clone.
#[derive(Debug)]
pub struct Handle<R> {
    /// State of pods, sources and backends.
    pub board: Arc<Board>,
    /// Event log.
    pub events: Arc<EventLog>,
    /// Removed pods.
    pub(crate) removed: Arc<Removed>,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Arc<Heartbeat>,
    /// Backends, for exec and logs.
    pub backends: Arc<[Backend<R>]>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) node_shutdown: Arc<ShutdownState>,
    /// Senders of prune requests, by backend.
    pub(crate) pruners: Arc<[(String, mpsc::Sender<Prune>)]>,
}

/// Request of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stops a pod, or one container of it, gracefully, and starts it again without back-off.
    Restart {
        /// Pod to restart.
        pod: PodKey,
        /// Container to restart; `None` restarts the whole pod with its sandbox.
        container: Option<String>,
    },
}

impl<R> Clone for Handle<R> {
    fn clone(&self) -> Self {
        Self {
            board: Arc::clone(&self.board),
            events: Arc::clone(&self.events),
            removed: Arc::clone(&self.removed),
            clock: self.clock,
            heartbeat: Arc::clone(&self.heartbeat),
            backends: Arc::clone(&self.backends),
            requests: self.requests.clone(),
            node_shutdown: Arc::clone(&self.node_shutdown),
            pruners: Arc::clone(&self.pruners),
        }
    }
}

impl<R> Handle<R> {
    /// Passes a request on. Returns once the request is accepted; the board shows its effect.
    pub async fn request(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            tracing::debug!("a request arrived while the agent was stopping");
        }
    }

    /// Removes unused images that the agent has pulled or imported; with `dry_run` it only lists them.
    pub async fn prune(&self, dry_run: bool) -> Vec<PruneView> {
        let prune = |(backend, pruner): &(String, mpsc::Sender<Prune>)| {
            let (backend, pruner) = (backend.clone(), pruner.clone());
            async move {
                let (answer, pruned) = oneshot::channel();
                let stopping = || Some("the agent is stopping".to_owned());
                match pruner.send(Prune { dry_run, answer }).await {
                    Ok(()) => pruned.await.ok(),
                    Err(_) => None,
                }
                .unwrap_or_else(|| PruneView { backend, error: stopping(), ..PruneView::default() })
            }
        };
        join_all(self.pruners.iter().map(prune)).await
    }

    /// Returns the removed pods, the latest first. It reads files.
    #[must_use]
    pub fn removed(&self) -> Vec<RemovedView> {
        self.removed.list(self.clock.stamp())
    }

    /// Checks that the reconciler still makes rounds (R-LOOP-7).
    ///
    /// # Errors
    /// The message contains the time since the last round.
    pub fn is_alive(&self) -> Result<(), String> {
        self.heartbeat.check()
    }

    /// Returns the runtime of the backend of that name, if the backend is open.
    #[must_use]
    pub fn runtime(&self, name: &str) -> Option<Arc<R>> {
        self.backends.iter().find(|backend| backend.name == name).and_then(Backend::runtime)
    }
}
