//! Owner of all tasks: names them, stops them, and ends the agent in order after a panic.

use std::{borrow::Cow, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

/// Owner of the agent's tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Supervisor {
    tasks: TaskTracker,
    shutdown: CancellationToken,
    killed: CancellationToken,
    panicked: watch::Sender<Option<Cow<'static, str>>>,
}

impl Supervisor {
    /// Creates a supervisor. Cancelling `shutdown` tells its tasks to stop.
    #[must_use]
    pub fn new(shutdown: CancellationToken) -> Self {
        let killed = CancellationToken::new();
        Self { tasks: TaskTracker::new(), shutdown, killed, panicked: watch::Sender::new(None) }
    }

    /// Returns the supervisor with a token that drops every task at its present await, for tests.
    #[must_use]
    pub fn with_kill(mut self, killed: CancellationToken) -> Self {
        self.killed = killed;
        self
    }

    /// Runs `task` in the background, in a span with its name, so that each of its log lines tells the task. It must
    /// end soon after [`shutdown`](Self::shutdown) is cancelled.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = name.into();
        let (panicked, killed) = (self.panicked.clone(), self.killed.clone());
        let span = tracing::info_span!("task", %name);
        // Boxed, because a future that is moved into another one takes its room twice.
        let task = Box::pin(task);
        let supervised = async move {
            if AssertUnwindSafe(killed.run_until_cancelled(task)).catch_unwind().await.is_err() {
                // The panic hook has logged the message and its place.
                tracing::error!("a task panicked; the agent stops, containers run on");
                panicked.send_replace(Some(name));
            }
        };
        self.tasks.spawn(supervised.instrument(span));
    }

    /// Returns the token that is cancelled when the agent stops.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Waits until a task has panicked, and returns its name.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn panicked(&self) -> Cow<'static, str> {
        let mut panicked = self.panicked.subscribe();
        // The guard is dropped here. Holding it across the other arm's await would tie the agent to one thread.
        let name = panicked.wait_for(Option::is_some).await.map(|name| name.clone().unwrap_or_default());
        match name {
            Ok(name) => name,
            // The sender lives in `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits until every task has ended, at most for `limit`. Returns whether all have.
    pub async fn drain(&self, limit: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.is_ok()
    }
}
