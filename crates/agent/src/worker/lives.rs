//! Hooks and probes of running containers: starts their tasks, takes their results, and records them for the next
//! agent.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use stanchion_plan::{
    is_current, is_running,
    life::{self, Hook, Life, ProbeKind},
    observed::Remains,
    time::after,
};
use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{ContainerId, ContainerInfo, ContainerState, Runtime, SandboxId, SandboxState};
use tokio_util::sync::DropGuard;

use super::Worker;
use crate::{
    blocking::blocking,
    clock::instant,
    desired::DesiredPod,
    hook::Place,
    node::Turn,
    probe::{News, Prober, Told},
};

/// Tasks of a pod's containers: probes by container and kind, hooks by container. Dropping a guard ends its task.
pub(super) type Probes = HashMap<(ContainerId, ProbeKind), DropGuard>;
pub(super) type Hooks = HashMap<ContainerId, DropGuard>;

impl<R: Runtime> Worker<R> {
    /// Reads the hook and probe state that earlier agents recorded for running containers.
    pub(super) async fn recall_lives(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let Some(pod) = self.shown(desired, remains) else { return };
        for container in pod.all_containers().filter(|container| life::is_noted(container)) {
            let containers = remains.iter().flat_map(|(_, remains)| &remains.containers);
            let unknown = containers
                .filter(|info| info.name == container.name && is_running(info) && !self.history.has_life(&info.id));
            for id in unknown.map(|info| info.id.clone()).collect::<Vec<_>>() {
                let (files, name) = (self.files(pod.uid.clone()), container.name.clone());
                let wanted = id.clone();
                let read = blocking(move || files.life(&name, &wanted)).await;
                let life = read.unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot read the saved state of a container's hook and probes");
                    None
                });
                self.history.set_life(id, Life { is_adopted: true, ..life.unwrap_or_default() });
            }
        }
    }

    /// Takes in the result of a hook or probe.
    pub(super) async fn hear(&mut self, told: Told) {
        let Told { container: id, news } = told;
        // The container may have ended meanwhile, and been removed.
        let Some(info) = self.container(&id) else { return };
        let pod = self.pod_of(&info, None).await;
        let mut life = self.history.life(&id);
        match news {
            News::Hook(ended) => {
                self.hooks.remove(&id);
                life.hook = match ended {
                    Ok(()) => Hook::Done,
                    Err(error) => {
                        let subject = self.subject(pod.as_deref(), &info.name);
                        self.shared.events.warning(&subject, "FailedPostStartHook", "PostStartHook failed");
                        tracing::warn!(container = info.name, error, "a postStart hook failed");
                        // A running container is not stopped because an agent died while its hook ran (I3).
                        if life.is_adopted { Hook::Done } else { Hook::Failed(error) }
                    }
                };
            }
            News::Probe(ProbeKind::Startup, good) => life.startup = Some(good),
            News::Probe(ProbeKind::Readiness, good) => life.readiness = Some(good),
            News::Probe(ProbeKind::Liveness, good) => life.is_dead = !good,
        }
        self.set_life(pod.as_deref(), &info.name, id, life).await;
    }

    /// Stores a container's hook and probe state, in memory and on the node.
    async fn set_life(&mut self, pod: Option<&Pod>, name: &str, id: ContainerId, life: Life) {
        if let Some(pod) = pod {
            let (files, name, id, life) = (self.files(pod.uid.clone()), name.to_owned(), id.clone(), life.clone());
            if let Err(error) = blocking(move || files.keep_life(&name, &id, &life)).await {
                tracing::warn!(%error, "cannot save the state of a container's hook and probes");
            }
        }
        self.history.set_life(id, life);
    }

    /// Starts a `postStart` hook in a task beside the loop.
    pub(super) async fn begin_hook(
        &mut self,
        desired: Option<&DesiredPod>,
        revision: &Revision,
        name: &str,
        id: ContainerId,
    ) {
        let Some((pod, home)) = self.revision(desired, revision) else { return };
        let (Some(hook), Some(info)) =
            (pod.container(name).and_then(|container| container.post_start.clone()), self.container(&id))
        else {
            return;
        };
        let Ok(runtime) = self.runtime(&home) else { return };
        let mut life = self.history.life(&id);
        // Only a hook that an earlier agent began is a repetition; a pending one counts as new.
        life.is_adopted = life.hook != Hook::Pending;
        life.hook = Hook::Begun { is_here: true };
        self.set_life(Some(&pod), name, id.clone(), life).await;
        let address = self.turn(Some(&pod), &info.sandbox).address();
        let (key, name, subject) = (self.key.clone(), name.to_owned(), self.subject(Some(&pod), name));
        let (events, tell) = (Arc::clone(&self.shared.events), self.told.0.clone());
        let (stop, uid) = (self.fetches.child_token(), pod.uid.clone());
        self.hooks.insert(id.clone(), stop.clone().drop_guard());
        let run = async move {
            let place = Place {
                runtime: &*runtime,
                key: &key,
                uid: uid.as_str(),
                name: &name,
                container: &id,
                address,
                subject: &subject,
                events: &events,
            };
            let news = News::Hook(place.run(&hook).await);
            if tell.send(Told { container: id.clone(), news }).await.is_err() {
                tracing::debug!("the pod went while a hook ran");
            }
        };
        self.shared.supervisor.spawn(format!("hook of {}", self.key), async move {
            stop.run_until_cancelled(run).await;
        });
    }

    /// Starts the probe tasks that are due and stops all others (R-PRB-1, R-PRB-6, R-PRB-9, R-TERM-5). A pod without
    /// probes costs nothing.
    pub(super) fn watch(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let Some(pod) = self.shown(desired, remains) else { return self.probes.clear() };
        if !pod.all_containers().any(life::has_probes) {
            return self.probes.clear();
        }
        let mut due = HashSet::new();
        for (backend, remains) in remains {
            for container in pod.all_containers().filter(|container| life::has_probes(container)) {
                for (kind, info) in self.due(&pod, container, remains, desired.is_some()) {
                    due.insert((info.id.clone(), kind));
                    if !self.probes.contains_key(&(info.id.clone(), kind)) {
                        self.put(&pod, container, info, kind, backend);
                    }
                }
            }
        }
        self.probes.retain(|probe, _| due.contains(probe));
    }

    /// Returns the probes that a container must have now.
    fn due<'a>(
        &self,
        pod: &Pod,
        container: &Container,
        remains: &'a Remains,
        is_wanted: bool,
    ) -> Vec<(ProbeKind, &'a ContainerInfo)> {
        let is_ready = |id: &SandboxId| {
            let mut sandboxes = remains.sandboxes.iter();
            sandboxes.any(|it| it.id == *id && it.state == SandboxState::Ready && is_current(it, pod))
        };
        let mut lives = remains.containers.iter();
        let newest = lives.rfind(|info| info.name == container.name && is_running(info) && is_ready(&info.sandbox));
        let Some(info) = newest.filter(|info| life::is_up(container, info, &self.history)) else { return Vec::new() };
        let life = self.history.life(&info.id);
        let kinds = match life::is_started(container, info, &self.history) {
            false if life.startup.is_none() && is_wanted => vec![ProbeKind::Startup],
            false => Vec::new(),
            true if life.is_dead || !is_wanted => vec![ProbeKind::Readiness],
            true => vec![ProbeKind::Liveness, ProbeKind::Readiness],
        };
        kinds.into_iter().filter(|kind| kind.of(container).is_some()).map(|kind| (kind, info)).collect()
    }

    fn put(&mut self, pod: &Pod, container: &Container, info: &ContainerInfo, kind: ProbeKind, backend: &str) {
        let (Ok(runtime), Some(probe)) = (self.runtime(backend), kind.of(container).cloned()) else { return };
        let ContainerState::Running { started_at } = info.state else { return };
        let life = self.history.life(&info.id);
        let started_at = self.history.instant_of(started_at.unwrap_or(info.created_at).into()).unwrap_or_else(instant);
        let wait = after(started_at, probe.initial_delay).saturating_duration_since(instant());
        // After an agent restart, jitter keeps the probes of all pods from running at once (R-PRB-3).
        let wait = if life.is_adopted { wait.max(spread(&info.id, kind, probe.period)) } else { wait };
        let prober = Prober {
            runtime,
            container: info.id.clone(),
            turn: self.turn(Some(pod), &info.sandbox),
            kind,
            subject: self.subject(Some(pod), &container.name),
            events: Arc::clone(&self.shared.events),
            tell: self.told.0.clone(),
            first: instant() + wait,
            known: match kind {
                ProbeKind::Startup => None,
                ProbeKind::Liveness => Some(true),
                ProbeKind::Readiness => Some(life.readiness.unwrap_or(false)),
            },
            probe,
        };
        let stop = self.fetches.child_token();
        self.probes.insert((info.id.clone(), kind), stop.clone().drop_guard());
        self.shared.supervisor.spawn(format!("probe of {}", self.key), async move {
            stop.run_until_cancelled(prober.run()).await;
        });
    }

    /// Returns the address for a container's hooks and probes: the pod's, or the node's with `hostNetwork`.
    pub(super) fn turn(&self, pod: Option<&Pod>, sandbox: &SandboxId) -> Turn {
        let remains = self.remains();
        let mut sandboxes = remains.iter().flat_map(|(_, remains)| &remains.sandboxes);
        let own = sandboxes.find(|it| it.id == *sandbox).and_then(|it| it.addresses.first().copied());
        match own {
            Some(own) => Turn::Pod(own),
            None if pod.is_some_and(|pod| pod.host_network) => Turn::Node(self.shared.node_addresses.clone()),
            None => Turn::Pod(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }
}

/// Returns the jitter: a stable, per-probe fraction of the period.
fn spread(container: &ContainerId, kind: ProbeKind, period: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    (container, kind).hash(&mut hasher);
    period.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}
