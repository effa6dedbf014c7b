//! Handle by which the local API reaches the agent.

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
    /// Everything that is shown.
    pub board: Arc<Board>,
    /// The event log.
    pub events: Arc<EventLog>,
    /// Pods that were removed.
    pub(crate) removed: Arc<Removed>,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Arc<Heartbeat>,
    /// The backends, for exec and logs.
    pub backends: Arc<[Backend<R>]>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) node_shutdown: Arc<ShutdownState>,
    /// Requests to the removers of images, by backend.
    pub(crate) pruners: Arc<[(String, mpsc::Sender<Prune>)]>,
}

/// A request of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Stop a pod (or one container of it) gracefully and start it again, without back-off.
    Restart {
        /// The pod.
        pod: PodKey,
        /// The container; `None` is the whole pod, sandbox included.
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
    /// Passes a request on. Returns once it is accepted; the board shows what comes of it.
    pub async fn request(&self, request: Request) {
        if self.requests.send(request).await.is_err() {
            tracing::debug!("a request arrived while the agent was stopping");
        }
    }

    /// Removes the images that the agent has brought and nothing uses; with `dry_run` it only lists them.
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

    /// Returns the removed pods, the latest first. Reads files.
    #[must_use]
    pub fn removed(&self) -> Vec<RemovedView> {
        self.removed.list(self.clock.stamp())
    }

    /// Checks that the agent's loop goes round (R-LOOP-7).
    ///
    /// # Errors
    /// The time for which it has stood still.
    pub fn is_alive(&self) -> Result<(), String> {
        self.heartbeat.check()
    }

    /// Returns the open backend of that name.
    #[must_use]
    pub fn runtime(&self, name: &str) -> Option<Arc<R>> {
        self.backends.iter().find(|backend| backend.name == name).and_then(Backend::runtime)
    }
}
