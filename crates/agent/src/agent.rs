//! The agent as a whole: starts sources, observers, reconciler and the other tasks, and ends them in order.

use std::{borrow::Cow, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use stanchion_board::{Board, EventLog, Journal, Subject, view::NodeView};
use stanchion_pod::Capacity;
use stanchion_runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admission,
    allocations::Allocations,
    backends::Backend,
    clock::Clock,
    config::AgentConfig,
    credentials::Providers,
    desired::{Desired, ReconcilerProgress},
    handle::{Handle, Request},
    id_ranges::IdRanges,
    images::{Collector, Images, OwnedRecord, Prune},
    keeper::Keeper,
    links,
    node::{self, BackendSlot},
    observe::observer,
    preload::{self, Imports},
    processes::PodProcesses,
    reconcile::Reconciler,
    removed::Removed,
    shared::Shared,
    source::Sources,
    starts::Starts,
    supervisor::Supervisor,
    sweep,
};

/// Time that running steps have to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(20);

/// Reason why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A task panicked, which is a bug. Containers keep running, and the service manager restarts the agent.
    #[error("task {0:?} panicked")]
    Panicked(Cow<'static, str>),
}

/// The agent, ready to run.
#[derive(Debug)]
pub struct Agent<R> {
    config: AgentConfig,
    handle: Handle<R>,
    requests: mpsc::Receiver<Request>,
    /// Requests to prune images, one receiver for each backend.
    prunes: Vec<mpsc::Receiver<Prune>>,
    clock: Clock,
    /// The node's addresses; `true` if the agent follows their changes.
    node_addresses: (watch::Sender<Vec<IpAddr>>, bool),
    capacity: Capacity,
    /// Number of processors that the agent may use.
    cores: usize,
    allocations: Allocations,
    proc: PathBuf,
    killed: CancellationToken,
}

impl<R: Runtime> Agent<R> {
    /// Creates an agent for these backends, in order of preference.
    #[must_use]
    pub fn new(config: AgentConfig, backends: Vec<Backend<R>>, node: NodeView) -> Self {
        let capacity = node::capacity();
        let allocations = Allocations::of_node(config.max_pods, &capacity, config.state_dir.clone());
        let node = NodeView { capacity: allocations.capacity(), ..node };
        let clock = Clock::System;
        let (send, requests) = mpsc::channel(64);
        let prune = |backend: &Backend<R>| {
            let (send, prunes) = mpsc::channel(4);
            ((backend.name.clone(), send), prunes)
        };
        let (pruners, prunes): (Vec<_>, _) = backends.iter().map(prune).unzip();
        let handle = Handle {
            board: Arc::new(Board::new(node, first_revision(clock))),
            events: Arc::new(EventLog::new(move || clock.now())),
            removed: Arc::new(Removed::new(&config.state_dir, config.remembered)),
            clock,
            heartbeat: Arc::default(),
            backends: backends.into(),
            requests: send,
            node_shutdown: Arc::default(),
            pruners: pruners.into(),
        };
        Self {
            config,
            handle,
            requests,
            prunes,
            clock,
            node_addresses: (watch::Sender::new(node::addresses(&[])), true),
            capacity,
            cores: std::thread::available_parallelism().map_or(2, usize::from),
            allocations,
            proc: "/proc".into(),
            killed: CancellationToken::new(),
        }
    }

    /// Returns the agent with another clock, for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        (self.clock, self.handle.clock) = (clock, clock);
        self.handle.events = Arc::new(EventLog::new(move || clock.now()));
        self
    }

    /// Returns the agent with another procfs, for tests.
    #[must_use]
    pub fn with_proc(mut self, proc: PathBuf) -> Self {
        self.proc = proc;
        self
    }

    /// Returns the agent as on a node that has these addresses, for tests.
    #[must_use]
    pub fn with_addresses(mut self, addresses: watch::Sender<Vec<IpAddr>>) -> Self {
        self.node_addresses = (addresses, false);
        self
    }

    /// Returns the agent as on a node with these resources, for tests.
    #[must_use]
    pub fn with_capacity(mut self, capacity: Capacity) -> Self {
        self.allocations = Allocations::of_node(self.config.max_pods, &capacity, self.config.state_dir.clone());
        self.cores = usize::try_from(capacity.cpu / 1000).unwrap_or(1);
        self.capacity = capacity;
        self
    }

    /// Returns the agent with a token that kills it, for tests: it drops every task at its present await.
    #[must_use]
    pub fn with_kill(mut self, killed: CancellationToken) -> Self {
        self.killed = killed;
        self
    }

    /// Returns the handle by which the local API reaches the agent.
    #[must_use]
    pub fn handle(&self) -> Handle<R> {
        self.handle.clone()
    }

    /// Runs until `shutdown`. Pods keep running afterwards.
    ///
    /// # Errors
    /// A task panicked; the agent has stopped its other tasks in order.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        // A panic cancels this child token, and so stops the agent's tasks but not the caller.
        let token = shutdown.child_token();
        let supervisor = Supervisor::new(token.clone()).with_kill(self.killed.clone());
        // It ends after the others, so that their last events are kept.
        let last = Supervisor::new(CancellationToken::new()).with_kill(self.killed.clone());
        let journal = Journal::new(self.config.state_dir.join("events"));
        let keeper = Keeper::open(Arc::clone(&self.handle.events), journal).await;
        last.spawn("events", keeper.run(last.shutdown().clone()));
        let desired = self.start(&supervisor);
        let ended = tokio::select! {
            // *Cancel-safe:* all of them only wait.
            () = shutdown.cancelled() => Ok(()),
            name = supervisor.panicked() => Err(RunError::Panicked(name)),
            name = last.panicked() => Err(RunError::Panicked(name)),
        };
        token.cancel();
        drop(desired);
        if !supervisor.drain(DRAIN).await {
            tracing::warn!(limit = ?DRAIN, "some steps did not end in time; the next start checks their results");
        }
        last.shutdown().cancel();
        if !last.drain(DRAIN).await {
            tracing::warn!(limit = ?DRAIN, "the latest events could not be written in time");
        }
        ended
    }

    /// Starts every task.
    fn start(self, supervisor: &Supervisor) -> watch::Receiver<Arc<Desired>> {
        let slots = self.observe(supervisor);
        let Handle { board, events, removed, heartbeat, node_shutdown, .. } = self.handle;
        let (addresses, are_followed) = self.node_addresses;
        let shared = Arc::new(Shared {
            slots,
            board: Arc::clone(&board),
            events: Arc::clone(&events),
            removed,
            heartbeat,
            clock: self.clock,
            supervisor: supervisor.clone(),
            pod_ended: Notify::new(),
            images_changed: watch::Sender::new(0),
            imports: Imports::default(),
            node_shutdown,
            capacity: self.capacity,
            node_addresses: addresses.subscribe(),
            id_ranges: IdRanges::new(&self.config.state_dir, self.config.max_pods),
            providers: Providers::new(self.config.credential_providers.clone()),
            processes: PodProcesses::new(self.proc),
            admission: Admission::of_node(self.config.allowed_unsafe_sysctls.clone()),
            config: self.config,
        });
        if are_followed {
            let follow = node::follow(addresses, supervisor.shutdown().clone());
            supervisor.spawn("addresses of the node", follow);
        }
        let (publish, desired) = watch::channel(Arc::default());
        let (publish_progress, progress) = watch::channel(ReconcilerProgress::default());
        let (sources, fetchers) = Sources::new(&shared.config, board, events, publish, progress);
        supervisor.spawn("sources", sources.run(supervisor.shutdown().clone()));
        for fetcher in fetchers {
            supervisor.spawn(fetcher.name(), fetcher.run(supervisor.shutdown().clone()));
        }
        supervisor.spawn(
            "reconciler",
            Reconciler::new(Arc::clone(&shared), desired.clone(), self.requests, self.allocations, publish_progress)
                .run(),
        );
        for (index, prunes) in self.prunes.into_iter().enumerate() {
            let collector = Collector { shared: Arc::clone(&shared), index, desired: desired.clone(), prunes };
            let name = &shared.slots[index].backend.name;
            supervisor.spawn(format!("unused images of {name}"), collector.run());
        }
        spawn_services(&shared, &desired);
        desired
    }

    /// Starts the observers of the backends.
    fn observe(&self, supervisor: &Supervisor) -> Vec<BackendSlot<R>> {
        let Handle { board, events, backends, .. } = &self.handle;
        let slot = |backend: &Backend<R>| {
            let (observer, watcher) = observer(backend.clone(), self.clock, Arc::clone(board), Arc::clone(events));
            supervisor.spawn(format!("observer of {}", backend.name), watcher.run(supervisor.shutdown().clone()));
            let starts = Starts::new((2 * self.cores).clamp(4, Semaphore::MAX_PERMITS));
            let record = OwnedRecord::of(&self.config.state_dir, &backend.name);
            let images = Arc::new(Images::new(record, self.clock));
            BackendSlot { backend: backend.clone(), observer, images, starts }
        };
        backends.iter().map(slot).collect()
    }
}

/// Starts the tasks that serve the node as a whole.
fn spawn_services<R: Runtime>(shared: &Arc<Shared<R>>, desired: &watch::Receiver<Arc<Desired>>) {
    let supervisor = &shared.supervisor;
    if shared.config.credential_providers.is_some() {
        supervisor.spawn("credential providers", check_providers(Arc::clone(shared)));
    }
    supervisor.spawn("sweep", sweep::run(Arc::clone(shared), desired.clone(), supervisor.shutdown().clone()));
    if let Some(directory) = shared.config.log_links.clone() {
        supervisor.spawn("links", links::run(Arc::clone(shared), directory, supervisor.shutdown().clone()));
    }
    if let Some(directory) = shared.config.preload.clone() {
        for index in 0..shared.slots.len() {
            let (shared, directory) = (Arc::clone(shared), directory.clone());
            let name = format!("preload of {}", shared.slots[index].backend.name);
            let shutdown = supervisor.shutdown().clone();
            supervisor.spawn(name, preload::run(shared, index, directory, shutdown));
        }
    }
}

/// Returns the board's first revision: the time of day in ms, which rises from one agent to the next.
fn first_revision(clock: Clock) -> u64 {
    u64::try_from(clock.now().as_millisecond()).unwrap_or(0)
}

/// Emits events for invalid settings of credential providers before the first pull.
async fn check_providers<R>(shared: Arc<Shared<R>>) {
    let Some((path, problems)) = shared.providers.check().await else { return };
    for problem in problems {
        shared.events.warning(
            &Subject::manifest(&path.display().to_string()),
            "CredentialProviderInvalid",
            problem.to_string(),
        );
    }
}
