//! Hooks and probes of running containers: starts their tasks, applies their results, and stores these for the next
//! agent.

use std::{
    collections::{HashMap, HashSet},
    future,
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use stanchion_plan::{
    history::History,
    is_of_revision, is_running,
    lifecycle::{self, HookState, LifecycleState, ProbeKind},
    observed::{Observed, ObservedPod},
    time::after,
};
use stanchion_pod::{Container, Pod};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, Runtime, SandboxId, SandboxState};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use super::context::{Context, Snapshot};
use crate::{
    blocking,
    clock::instant,
    hook::HookContext,
    node::ContactAddress,
    probe::{LifecycleUpdate, Outcome, Prober},
};

/// Tasks of the hooks and probes of a pod's containers.
#[derive(Debug)]
pub(super) struct Lifecycle {
    /// Tasks of probes by container and kind. Dropping a guard ends its task.
    probes: HashMap<(ContainerId, ProbeKind), DropGuard>,
    /// Tasks of hooks by container. Dropping a guard ends its task.
    hooks: HashMap<ContainerId, DropGuard>,
    sender: mpsc::Sender<LifecycleUpdate>,
    receiver: mpsc::Receiver<LifecycleUpdate>,
}

/// A container on a backend, with the address of its pod.
pub(super) struct Target<'a, R> {
    pub runtime: Arc<R>,
    pub info: &'a ContainerInfo,
    pub address: ContactAddress,
}

impl Lifecycle {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel(16);
        Self { probes: HashMap::new(), hooks: HashMap::new(), sender, receiver }
    }

    /// Waits for the next result of a hook or probe.
    ///
    /// *Cancel-safe:* a result stays until it is returned.
    pub async fn next(&mut self) -> LifecycleUpdate {
        // The channel stays open: this struct holds a sender.
        match self.receiver.recv().await {
            Some(update) => update,
            None => future::pending().await,
        }
    }

    /// Returns the next result of a hook or probe, if one has arrived.
    pub fn try_next(&mut self) -> Option<LifecycleUpdate> {
        self.receiver.try_recv().ok()
    }

    /// Applies the result of a hook or probe of a container. `pod` is the manifest that the container was made from.
    pub async fn apply<R: Runtime>(
        &mut self,
        context: &Context<R>,
        info: &ContainerInfo,
        pod: Option<&Pod>,
        outcome: Outcome,
        history: &mut History,
    ) {
        let mut state = history.lifecycle(&info.id);
        match outcome {
            Outcome::Hook(ended) => {
                self.hooks.remove(&info.id);
                state.hook = match ended {
                    Ok(()) => HookState::Done,
                    Err(error) => {
                        let subject = context.container(pod, &info.name);
                        context.events().warning(&subject, "FailedPostStartHook", "PostStartHook failed");
                        tracing::warn!(container = info.name, error, "a postStart hook failed");
                        // An agent that died during a hook must not cause the stop of a running container (I3).
                        if state.is_adopted { HookState::Done } else { HookState::Failed(error) }
                    }
                };
            }
            Outcome::Probe(ProbeKind::Startup, good) => state.startup = Some(good),
            Outcome::Probe(ProbeKind::Readiness, good) => state.readiness = Some(good),
            Outcome::Probe(ProbeKind::Liveness, good) => state.is_dead = !good,
        }
        store(context, pod, info, state, history).await;
    }

    /// Starts a `postStart` hook in a task beside the loop.
    pub async fn begin_hook<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: &Pod,
        Target { runtime, info, address }: Target<'_, R>,
        history: &mut History,
    ) {
        let Some(hook) = pod.container(&info.name).and_then(|container| container.post_start.clone()) else { return };
        let mut state = history.lifecycle(&info.id);
        // A hook that an earlier agent began is repeated; a pending one begins for the first time.
        state.is_adopted = state.hook != HookState::Pending;
        state.hook = HookState::Begun { is_here: true };
        store(context, Some(pod), info, state, history).await;
        let (key, name, id) = (context.key.clone(), info.name.clone(), info.id.clone());
        let (subject, uid) = (context.container(Some(pod), &info.name), pod.uid.clone());
        let (events, sender) = (Arc::clone(&context.shared.events), self.sender.clone());
        let stop = context.cancelled.child_token();
        self.hooks.insert(id.clone(), stop.clone().drop_guard());
        let run = async move {
            let hook_context = HookContext {
                runtime: &*runtime,
                key: &key,
                uid: uid.as_str(),
                name: &name,
                container: &id,
                address: address.current(),
                subject: &subject,
                events: &events,
            };
            let outcome = Outcome::Hook(hook_context.run(&hook).await);
            if sender.send(LifecycleUpdate { container: id.clone(), outcome }).await.is_err() {
                tracing::debug!("the pod went while a hook ran");
            }
        };
        context.shared.supervisor.spawn(format!("hook of {}", context.key), async move {
            stop.run_until_cancelled(run).await;
        });
    }

    /// Ends the hook and the probes of a container that is about to be stopped, except for its readiness probe.
    pub fn end(&mut self, id: &ContainerId) {
        self.probes.remove(&(id.clone(), ProbeKind::Startup));
        self.probes.remove(&(id.clone(), ProbeKind::Liveness));
        self.hooks.remove(id);
    }

    /// Starts the probe tasks that are due and ends all others (R-PRB-1, R-PRB-6, R-PRB-9, R-TERM-5). `pod` is the
    /// revision that is shown.
    pub fn sync<R: Runtime>(
        &mut self,
        context: &Context<R>,
        snapshot: &Snapshot,
        pod: Option<&Pod>,
        history: &History,
    ) {
        let Some(pod) = pod.filter(|pod| pod.all_containers().any(lifecycle::has_probes)) else {
            return self.probes.clear();
        };
        let mut wanted = HashSet::new();
        for (backend, there) in snapshot.observed.backends() {
            for container in pod.all_containers().filter(|container| lifecycle::has_probes(container)) {
                for (kind, info) in due(pod, container, there, snapshot.desired.is_some(), history) {
                    wanted.insert((info.id.clone(), kind));
                    if !self.probes.contains_key(&(info.id.clone(), kind))
                        && let Ok(runtime) = context.runtime(backend)
                    {
                        let address = contact_address(context, &snapshot.observed, Some(pod), &info.sandbox);
                        self.probe(context, pod, container, Target { runtime, info, address }, kind, history);
                    }
                }
            }
        }
        self.probes.retain(|probe, _| wanted.contains(probe));
    }

    /// Starts the task of a probe.
    fn probe<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: &Pod,
        container: &Container,
        Target { runtime, info, address }: Target<'_, R>,
        kind: ProbeKind,
        history: &History,
    ) {
        let Some(probe) = kind.of(container).cloned() else { return };
        let ContainerState::Running { started_at } = info.state else { return };
        let state = history.lifecycle(&info.id);
        let started_at = history.instant_of(started_at.unwrap_or(info.created_at).into()).unwrap_or_else(instant);
        let wait = after(started_at, probe.initial_delay).saturating_duration_since(instant());
        // After an agent restart, jitter keeps the probes of all pods from running at once (R-PRB-3).
        let wait = if state.is_adopted { wait.max(jitter(&info.id, kind, probe.period)) } else { wait };
        let prober = Prober {
            runtime,
            container: info.id.clone(),
            address,
            kind,
            subject: context.container(Some(pod), &container.name),
            events: Arc::clone(&context.shared.events),
            sender: self.sender.clone(),
            first: instant() + wait,
            known: match kind {
                ProbeKind::Startup => None,
                ProbeKind::Liveness => Some(true),
                ProbeKind::Readiness => Some(state.readiness.unwrap_or(false)),
            },
            probe,
        };
        let stop = context.cancelled.child_token();
        self.probes.insert((info.id.clone(), kind), stop.clone().drop_guard());
        context.shared.supervisor.spawn(format!("probe of {}", context.key), async move {
            stop.run_until_cancelled(prober.run()).await;
        });
    }
}

/// Reads the hook and probe state that earlier agents stored for running containers of the shown pod.
pub(super) async fn recall<R: Runtime>(context: &Context<R>, pod: &Pod, observed: &Observed, history: &mut History) {
    for container in pod.all_containers().filter(|container| lifecycle::has_state(container)) {
        let is_unknown =
            |it: &&ContainerInfo| it.name == container.name && is_running(it) && !history.has_lifecycle(&it.id);
        for id in observed.containers().filter(is_unknown).map(|it| it.id.clone()).collect::<Vec<_>>() {
            let (files, name) = (context.files(pod.uid.clone()), container.name.clone());
            let wanted = id.clone();
            let read = blocking(move || files.lifecycle(&name, &wanted)).await;
            let state = read.unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read the saved state of a container's hook and probes");
                None
            });
            history.set_lifecycle(id, LifecycleState { is_adopted: true, ..state.unwrap_or_default() });
        }
    }
}

/// Stores a container's hook and probe state, in memory and on the node.
async fn store<R: Runtime>(
    context: &Context<R>,
    pod: Option<&Pod>,
    info: &ContainerInfo,
    state: LifecycleState,
    history: &mut History,
) {
    if let Some(pod) = pod {
        let (files, kept) = (context.files(pod.uid.clone()), state.clone());
        let (name, id) = (info.name.clone(), info.id.clone());
        if let Err(error) = blocking(move || files.keep_lifecycle(&name, &id, &kept)).await {
            tracing::warn!(%error, "cannot save the state of a container's hook and probes");
        }
    }
    history.set_lifecycle(info.id.clone(), state);
}

/// Returns the probes that a container must have now.
fn due<'a>(
    pod: &Pod,
    container: &Container,
    there: &'a ObservedPod,
    is_wanted: bool,
    history: &History,
) -> Vec<(ProbeKind, &'a ContainerInfo)> {
    let is_ready = |id: &SandboxId| {
        let mut sandboxes = there.sandboxes.iter();
        sandboxes.any(|it| it.id == *id && it.state == SandboxState::Ready && is_of_revision(it, pod))
    };
    let mut instances = there.containers.iter();
    let newest = instances.rfind(|info| info.name == container.name && is_running(info) && is_ready(&info.sandbox));
    let Some(info) = newest.filter(|info| lifecycle::is_up(container, info, history)) else { return Vec::new() };
    let state = history.lifecycle(&info.id);
    let kinds = match lifecycle::is_started(container, info, history) {
        false if state.startup.is_none() && is_wanted => vec![ProbeKind::Startup],
        false => Vec::new(),
        true if state.is_dead || !is_wanted => vec![ProbeKind::Readiness],
        true => vec![ProbeKind::Liveness, ProbeKind::Readiness],
    };
    kinds.into_iter().filter(|kind| kind.of(container).is_some()).map(|kind| (kind, info)).collect()
}

/// Returns the address for a container's hooks and probes: the pod's, or the node's with `hostNetwork`.
pub(super) fn contact_address<R: Runtime>(
    context: &Context<R>,
    observed: &Observed,
    pod: Option<&Pod>,
    sandbox: &SandboxId,
) -> ContactAddress {
    let own = observed.sandboxes().find(|it| it.id == *sandbox).and_then(|it| it.addresses.first().copied());
    match own {
        Some(own) => ContactAddress::Pod(own),
        None if pod.is_some_and(|pod| pod.host_network) => ContactAddress::Node(context.shared.node_addresses.clone()),
        None => ContactAddress::Pod(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    }
}

/// Returns the jitter: a stable, per-probe fraction of the period.
fn jitter(container: &ContainerId, kind: ProbeKind, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (container, kind).hash(&mut hasher);
    period.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}
