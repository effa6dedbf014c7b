//! The worker of one pod: a loop that plans, performs one step, observes the backend, and plans again.
//!
//! # Layout
//! - [`Worker`]: the loop, and the order of its steps. Each part owns what it remembers, and has a `sync` of its own:
//!   - [`Inbox`]: wake-ups. [`restarts`]: restarts on request.
//!   - [`Location`]: the pod's backends. [`Unowned`](unowned::Unowned): processes that no backend knows.
//!   - [`Recall`]: the running revision, and the records of earlier agents.
//!   - [`Pulls`]: image pulls. [`Lifecycle`]: hooks and probes. [`messages`]: termination messages.
//!   - [`Projections`]: volumes that follow ConfigMaps and Secrets. [`Usage`]: disk usage and eviction.
//!   - [`Presence`]: the pod over all of its revisions. [`show`]: its view. [`announce`]: events.
//! - [`decide`]: the plan and its inputs. [`perform`], [`create_sandbox`], [`start_container`]: the steps of a plan;
//!   [`failed`]: their failures. [`stop`]: order of stops. [`prepare`]: files and environment. [`pod_inputs`]: volumes.
//!   [`container`]: configuration of sandboxes and containers, with [`security`] and [`mounts`].
//! - [`Context`]: the pod's name, and the state that all tasks of the agent share. Every part gets it.

mod announce;
mod container;
mod context;
mod create_sandbox;
mod decide;
mod failed;
mod inbox;
mod lifecycle;
mod location;
mod messages;
mod mounts;
mod perform;
mod pod_inputs;
mod prepare;
mod presence;
mod pulls;
mod recall;
mod restarts;
mod security;
mod show;
mod start_container;
mod stop;
mod unowned;
mod usage;

use std::{
    collections::BTreeSet,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan as plan;
use stanchion_plan::{Action, Plan, history::History, observed::Observed, time::Backoff};
use stanchion_pod::{Container, Pod, PodKey, PodUid, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, Runtime, labels};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use context::{Context, ShownBackend, Snapshot};
use inbox::{Inbox, Wake};
use lifecycle::{Lifecycle, Target};
use location::Location;
use prepare::Projections;
use presence::{EndedPod, Presence};
use pulls::Pulls;
use recall::Recall;
pub(crate) use recall::uid;
use restarts::RestartRequests;
pub(crate) use show::stamp;
use usage::Usage;

use crate::{clock::sleep_until, desired::DesiredPod, files::RecordedBackend, probe::LifecycleUpdate, shared::Shared};

/// Waits after failed steps.
const RETRY: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };

/// The reconciler's handle of a worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    pub desired: watch::Sender<Option<DesiredPod>>,
    pub restarts: Arc<RestartRequests>,
    pub ended: Arc<EndedPod>,
}

/// Worker of one pod: brings the pod into its wanted state and keeps it there.
#[derive(Debug)]
pub(crate) struct Worker<R> {
    context: Context<R>,
    inbox: Inbox,
    /// Memory of the worker's own tries, for the plan.
    history: History,
    location: Location,
    recall: Recall,
    pulls: Pulls,
    lifecycle: Lifecycle,
    projections: Projections,
    usage: Usage,
    presence: Presence,
    pause: RetryPause,
}

/// Result of one sync, a round of the worker's loop.
struct Synced {
    snapshot: Snapshot,
    /// States of the backends when the sync began.
    backends: Vec<ShownBackend>,
    plan: Plan,
}

/// Wait after a failed step.
#[derive(Debug, Default)]
struct RetryPause {
    until: Option<Instant>,
    delay: Duration,
}

/// Reason why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerEnd {
    /// Nothing of the pod is left.
    Gone,
    /// The agent stops; the pod runs on.
    Shutdown,
}

impl<R: Runtime> Worker<R> {
    /// Makes the worker of a pod. `recorded` names the backends that earlier agents put the pod on.
    pub(crate) fn new(
        key: PodKey,
        shared: Arc<Shared<R>>,
        desired: Option<DesiredPod>,
        recorded: &[RecordedBackend],
    ) -> (Self, WorkerHandle) {
        let (desired, wanted) = watch::channel(desired);
        let restarts = Arc::new(RestartRequests::default());
        let uids = recorded.iter().map(|it| PodUid::new(&it.uid)).collect();
        let (presence, ended) = Presence::new(shared.clock, uids);
        let worker = Self {
            inbox: Inbox::new(wanted, Arc::clone(&restarts), &shared),
            context: Context::new(key, shared),
            history: History::default(),
            location: Location::recorded(recorded),
            recall: Recall::default(),
            pulls: Pulls::new(),
            lifecycle: Lifecycle::new(),
            projections: Projections::default(),
            usage: Usage::default(),
            presence,
            pause: RetryPause::default(),
        };
        (worker, WorkerHandle { desired, restarts, ended })
    }

    /// Syncs, and performs steps or waits, until the pod is gone or the agent stops.
    ///
    /// A worker waits nearly all of its time. What it needs only while it works is boxed, so that a waiting worker costs
    /// a few KiB, and not as much as its largest step.
    pub(crate) async fn run(mut self) -> WorkerEnd {
        let shutdown = self.context.shared.supervisor.shutdown().clone();
        while !shutdown.is_cancelled() {
            let Synced { snapshot, backends, plan } = Box::pin(self.sync()).await;
            match plan.action {
                Some(Action::CleanUp) => {
                    if Box::pin(self.clean_up()).await {
                        self.context.cancelled.cancel();
                        Box::pin(self.presence.remember(&self.context)).await;
                        self.context.shared.node_shutdown.set_running(&self.context.key, None, false);
                        self.context.shared.board.remove_pod(&self.context.key);
                        return WorkerEnd::Gone;
                    }
                }
                Some(action) => Box::pin(self.act(action, snapshot.desired.as_ref())).await,
                None => self.wait(plan.wake_at, &backends, &snapshot.observed, &shutdown).await,
            }
        }
        WorkerEnd::Shutdown
    }

    /// Takes in all input, decides the next step, and shows the pod. Each step needs those before it:
    ///
    /// 1. `apply_results`: the results of pulls, hooks and probes. No step is planned without them.
    /// 2. `mark_observations`: before any observation is read, so that a later one ends the wait after this sync.
    /// 3. `settle`: the pod's backend. It decides which observations count.
    /// 4. `snapshot`: the pod's sandboxes and containers. All further steps use them; only the state of a
    ///    backend is read again.
    /// 5. `apply_restarts`: restarts on request. They name containers that exist now.
    /// 6. `search`: processes that a vanished pod may have left. They prevent every start (I1).
    /// 7. `read_records`: records of earlier agents. They tell the running revision, and then attempt numbers, hooks,
    ///    probes and termination messages of its containers.
    /// 8. `projections` and `usage`: volumes and disk usage of the revision that has a sandbox.
    /// 9. `decide`: the plan, from all of that.
    /// 10. `lifecycle`: the probes, for the same state as the plan.
    /// 11. `announce`, then `show`: events and status, which reflect all of the above.
    async fn sync(&mut self) -> Synced {
        self.apply_results().await;
        self.inbox.mark_observations();
        let desired = self.inbox.desired();
        let backends = self.context.shown_backends();
        let uids = self.known_uids();
        let pod = desired.as_ref().map(|desired| &*desired.pod);
        let settled = self.location.settle(&self.context, pod, &uids, &mut self.recall, &mut self.history).await;
        let snapshot = self.snapshot(desired);
        self.apply_restarts(&snapshot.observed);
        let searched = self.location.search(&self.context, &snapshot.observed, &uids).await;
        let unwritten = self.read_records(&snapshot).await;
        let pod_with_sandbox =
            snapshot.desired.as_ref().and_then(|desired| self.recall.pod_with_sandbox(desired, &snapshot.observed));
        let refreshed =
            self.projections.sync(&self.context, pod_with_sandbox.as_ref(), snapshot.desired.as_ref()).await;
        let measured =
            self.usage.sync(&self.context, pod_with_sandbox.as_ref(), &snapshot.observed, &mut self.history).await;
        let mut plan = self.decide(&snapshot);
        let pod = self.pod_to_show(&snapshot);
        self.lifecycle.sync(&self.context, &snapshot, pod.as_deref(), &self.history);
        self.announce(&snapshot, pod.as_ref());
        self.show(&snapshot);
        plan.wake_at = [plan.wake_at, settled, searched, unwritten, refreshed, measured].into_iter().flatten().min();
        Synced { snapshot, backends, plan }
    }

    /// Applies the results of pulls, hooks and probes that have arrived.
    async fn apply_results(&mut self) {
        self.pulls.apply_all(&mut self.history);
        while let Some(update) = self.lifecycle.try_next() {
            self.apply(update).await;
        }
    }

    /// Applies the result of a hook or probe.
    async fn apply(&mut self, LifecycleUpdate { container, outcome }: LifecycleUpdate) {
        // The container may have ended and been removed meanwhile.
        let Some(info) = self.container(&container) else { return };
        let pod = self.recall.pod_of(&self.context, &info, [None, self.presence.last()]).await;
        self.lifecycle.apply(&self.context, &info, pod.as_deref(), outcome, &mut self.history).await;
    }

    /// Reads the records of the running pod. Returns the next time to write a record that could not be written.
    async fn read_records(&mut self, snapshot: &Snapshot) -> Option<Instant> {
        let (context, history) = (&self.context, &mut self.history);
        self.recall.sync(context, snapshot, self.presence.last()).await;
        self.recall.count(context, snapshot.desired.as_ref(), history).await;
        if let Some(pod) = self.recall.pod_to_show(snapshot, self.presence.last()) {
            lifecycle::recall(context, &pod, &snapshot.observed, history).await;
            messages::read(context, &pod, &snapshot.observed, history).await;
        }
        self.recall.write_again(context).await
    }

    /// Performs a step, and observes its backend again. Pulls and hooks only begin here: they continue in tasks
    /// beside the loop.
    async fn act(&mut self, action: Action, desired: Option<&DesiredPod>) {
        match action {
            Action::EnsureImages { revision, images } => {
                let Some((pod, backend)) = self.revision(desired, &revision) else { return };
                let observed = self.observed();
                let has_run = |container: &Container| has_run(&observed, &pod, container);
                self.pulls.begin(&self.context, (&pod, &backend), desired, &images, &mut self.history, has_run);
            }
            Action::RunHook { revision, id, .. } => {
                let (Some((pod, backend)), Some(info)) = (self.revision(desired, &revision), self.container(&id))
                else {
                    return;
                };
                let Ok(runtime) = self.context.runtime(&backend) else { return };
                let address = lifecycle::contact_address(&self.context, &self.observed(), Some(&pod), &info.sandbox);
                let target = Target { runtime, info: &info, address };
                self.lifecycle.begin_hook(&self.context, &pod, target, &mut self.history).await;
            }
            action => {
                let backend = self.backend_of(&action, desired);
                let is_removal = matches!(action, Action::RemoveSandbox { .. });
                self.perform(action, desired).await;
                self.context.observe(&backend).await;
                if is_removal {
                    self.location.forget_if_gone(&self.context, &backend);
                }
            }
        }
    }

    /// Returns a revision's manifest and its backend, if the worker knows them.
    fn revision(&self, desired: Option<&DesiredPod>, revision: &Revision) -> Option<(Arc<Pod>, String)> {
        if let Some(desired) = desired.filter(|desired| desired.pod.revision == *revision) {
            return Some((Arc::clone(&desired.pod), self.location.backend(&self.context, Some(&desired.pod))));
        }
        self.recall.backend_of(revision)
    }

    /// Returns the backend that a step acts on.
    fn backend_of(&self, action: &Action, desired: Option<&DesiredPod>) -> String {
        match action {
            Action::StopContainers { backend, .. }
            | Action::StopSandbox { backend, .. }
            | Action::RemoveSandbox { backend, .. }
            | Action::RemoveContainer { backend, .. } => backend.clone(),
            Action::EnsureImages { revision, .. }
            | Action::CreateSandbox { revision, .. }
            | Action::StartContainer { revision, .. }
            | Action::RunHook { revision, .. }
            | Action::RunContainer(plan::Run { revision, .. }) => {
                self.revision(desired, revision).map(|(_, backend)| backend).unwrap_or_default()
            }
            Action::CleanUp => String::new(),
        }
    }

    /// Waits for a reason to plan again.
    async fn wait(
        &mut self,
        wake_at: Option<Instant>,
        backends: &[ShownBackend],
        observed: &Observed,
        shutdown: &CancellationToken,
    ) {
        let sleep = async {
            match wake_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::pin!(sleep);
        loop {
            // *Cancel-safe:* every arm waits on a channel or the clock and keeps what it has not delivered.
            let wake = tokio::select! {
                () = shutdown.cancelled() => return,
                wake = self.inbox.wake() => wake,
                update = self.pulls.next() => return self.pulls.apply(update, &mut self.history),
                update = self.lifecycle.next() => return Box::pin(self.apply(update)).await,
                () = &mut sleep => return,
            };
            match wake {
                Wake::Input => return,
                Wake::Images => return self.history.clear_waits(),
                Wake::Shutdown => return shutdown.cancelled().await,
                Wake::Observation if self.context.shown_backends() != backends || self.observed() != *observed => {
                    return;
                }
                Wake::Observation => {}
            }
        }
    }

    /// Makes a snapshot of the wanted pod and the latest observations.
    fn snapshot(&mut self, desired: Option<DesiredPod>) -> Snapshot {
        let observed = self.observed();
        self.record_times(&observed);
        Snapshot { desired, observed }
    }

    /// Returns the observed sandboxes and containers of the pod.
    fn observed(&self) -> Observed {
        self.location.observed(&self.context, &self.history)
    }

    /// Returns a container of the pod from the latest observations.
    fn container(&self, id: &ContainerId) -> Option<ContainerInfo> {
        self.observed().containers().find(|container| container.id == *id).cloned()
    }

    /// Converts the times that runtimes report to `Instant`s, once each.
    fn record_times(&mut self, observed: &Observed) {
        let clock = self.context.shared.clock;
        self.history.record_times(&self.presence.first_seen_times(), observed, |reported| clock.instant_of(reported));
    }

    /// Applies the restarts that users requested. A request during a restart of the pod belongs to that restart.
    fn apply_restarts(&mut self, observed: &Observed) {
        let wanted = self.inbox.restarts();
        if wanted.is_empty() {
            return;
        }
        self.history.clear_waits();
        self.history.set_evicted(None);
        if wanted.pod {
            observed.sandboxes().for_each(|sandbox| self.history.restart_sandbox(sandbox.id.clone()));
        }
        for (_, there) in observed.backends() {
            for name in &wanted.containers {
                let newest = there.containers.iter().rfind(|instance| instance.name == *name);
                newest.into_iter().for_each(|instance| self.history.restart_container(instance.id.clone()));
            }
        }
    }

    /// Returns the UIDs under which processes of the pod may run.
    fn known_uids(&self) -> BTreeSet<PodUid> {
        let last = self.presence.last().map(|last| &last.pod);
        let pods = last.into_iter().chain(self.recall.running()).map(|pod| pod.uid.clone());
        pods.chain(self.presence.uids().iter().cloned()).chain(self.inbox.uid()).collect()
    }
}

/// Returns whether an instance of the container exists in this revision of the pod.
fn has_run(observed: &Observed, pod: &Pod, container: &Container) -> bool {
    observed.containers().any(|instance| {
        instance.name == container.name
            && instance.labels.get(labels::REVISION).is_some_and(|revision| revision == pod.revision.as_str())
    })
}

#[cfg(test)]
mod tests {
    use stanchion_runtime::testing::FakeRuntime;

    use super::Worker;

    fn size_of_future<T, F: Future>(_: impl FnOnce(T) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_waiting_worker_is_small() {
        let (run, worker) = (size_of_future(Worker::<FakeRuntime>::run), size_of::<Worker<FakeRuntime>>());
        println!("{run} bytes, {worker} of them the worker's state");
        assert!(
            run <= 3 * worker,
            "a worker waits in {run} bytes, its state has {worker}: box what waits only briefly"
        );
    }
}
