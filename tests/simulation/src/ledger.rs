//! The books of the simulation: sandboxes and containers as the runtimes' own journals tell them, and the invariants that
//! each entry must keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stanchion_runtime::{
    ContainerId, ContainerInfo, ExecRequest, SandboxId, SandboxInfo, labels,
    testing::{Call, Entry, Fact},
};
use tokio::time::Instant;

use crate::{
    pod::{Policy, Role},
    schedule::PODS,
    world::{Cause, Trouble, World},
};

/// Longest back-off, and the first one.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Run time after which the back-off starts over, with a margin for slow calls.
const RESET: (Duration, Duration) = (Duration::from_secs(500), Duration::from_secs(600));

/// Id of a container or sandbox, with the name of its runtime.
type At<T> = (Arc<str>, T);

/// Sandboxes and containers.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Sandboxes, and the pods that they are of.
    pub sandboxes: BTreeMap<At<SandboxId>, Sandbox>,
    /// Containers.
    pub containers: BTreeMap<At<ContainerId>, Container>,
    /// Pods of which the agent could not record where they run and what they are.
    unrecorded: BTreeSet<usize>,
    /// Sentences that say which invariants were broken.
    pub broken: Vec<String>,
}

/// A sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Index of its pod.
    pub pod: usize,
    /// Whether it is ready.
    pub is_ready: bool,
}

/// A container.
#[derive(Debug)]
pub struct Container {
    /// Index of its pod.
    pub pod: usize,
    /// UID of its pod.
    pub uid: String,
    /// Version of its pod.
    pub version: u64,
    /// Its name.
    pub name: String,
    /// Its sandbox.
    pub sandbox: SandboxId,
    made: Instant,
    /// When the first of the containers was made that it followed.
    first_made: Instant,
    /// When it was started.
    pub started: Option<Instant>,
    /// When it ended, and its exit code.
    pub ended: Option<(Instant, Option<i32>)>,
    /// Time to wait before the restart that follows it.
    backoff: Duration,
    /// When its stop began, with its hook if it has one.
    stopping: Option<Instant>,
    /// Whether it was told to stop.
    is_told: bool,
    /// Whether its `preStop` hook was called.
    is_hooked: bool,
}

impl Container {
    /// Returns whether it runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }
}

impl Ledger {
    /// Takes in an entry of the journal.
    pub fn enter(&mut self, entry: &Entry, world: &World) {
        let Entry { at, runtime, fact } = entry;
        let here = |id: &ContainerId| (Arc::clone(runtime), id.clone());
        match fact {
            Fact::Called(call) => self.called(*at, runtime, call, world),
            Fact::SandboxMade(info) => {
                if let Some(pod) = pod_of(&info.labels) {
                    self.sandboxes.insert((Arc::clone(runtime), info.id.clone()), Sandbox { pod, is_ready: true });
                    self.one_sandbox(pod, runtime, info);
                    self.record(pod, true, world);
                }
            }
            Fact::SandboxLost(id) => {
                if let Some(sandbox) = self.sandboxes.get_mut(&(Arc::clone(runtime), id.clone())) {
                    sandbox.is_ready = false;
                }
            }
            Fact::SandboxGone(id) => drop(self.sandboxes.remove(&(Arc::clone(runtime), id.clone()))),
            Fact::Made(info) => self.made(*at, runtime, info),
            Fact::Started(id) => self.started(*at, here(id), world),
            Fact::Ended(id, code) => {
                if let Some(container) = self.containers.get_mut(&here(id)) {
                    container.ended = Some((*at, *code));
                }
            }
            Fact::Gone(id) => drop(self.containers.remove(&here(id))),
        }
    }

    /// Checks that a pod has one ready sandbox on a runtime (I1). On another one an empty sandbox may be left that was given up.
    fn one_sandbox(&mut self, pod: usize, runtime: &Arc<str>, info: &SandboxInfo) {
        let ready = self.sandboxes.iter().filter(|(_, sandbox)| sandbox.pod == pod && sandbox.is_ready);
        if ready.filter(|(key, _)| key.0 == *runtime).count() > 1 {
            self.broken.push(format!("I1: {} is the second ready sandbox of pod {}", info.id, PODS[pod]));
        }
    }

    /// Notes whether the agent can record what it does with a pod. What it cannot record on a full disk, the next agent does not
    /// know: where the pod runs, and its manifest, which has its hooks and sidecars.
    fn record(&mut self, pod: usize, is_new: bool, world: &World) {
        if world.troubles.contains(&Trouble::FullDisk) {
            self.unrecorded.insert(pod);
        } else if is_new {
            self.unrecorded.remove(&pod);
        }
    }

    fn made(&mut self, at: Instant, runtime: &Arc<str>, info: &ContainerInfo) {
        let Some(pod) = pod_of(&info.labels) else { return };
        let container = Container {
            pod,
            uid: info.labels.get(labels::POD_UID).cloned().unwrap_or_default(),
            version: info.image.rsplit(':').next().and_then(|tag| tag.parse().ok()).unwrap_or(0),
            name: info.name.clone(),
            sandbox: info.sandbox.clone(),
            made: at,
            first_made: at,
            started: None,
            ended: None,
            backoff: Duration::ZERO,
            stopping: None,
            is_told: false,
            is_hooked: false,
        };
        self.containers.insert((Arc::clone(runtime), info.id.clone()), container);
    }

    fn started(&mut self, at: Instant, key: At<ContainerId>, world: &World) {
        let Some(new) = self.containers.get(&key) else { return };
        let mut broken = Vec::new();
        let others = self.containers.iter().filter(|(other, it)| **other != key && it.pod == new.pod && it.runs());
        let is_known = |other: &At<ContainerId>| other.0 == key.0 || !self.unrecorded.contains(&new.pod);
        let others = others.filter(|(other, _)| is_known(other));
        for (other, it) in others.filter(|(_, it)| it.sandbox != new.sandbox || it.name == new.name) {
            broken.push(format!("I1: {} starts while {} of {} runs", key.1, other.1, it.sandbox));
        }
        let last = self.containers.iter().filter(|(other, it)| {
            let is_same = (&it.name, it.version, &it.sandbox) == (&new.name, new.version, &new.sandbox);
            is_same && other.0 == key.0 && **other != key && it.ended.is_some()
        });
        let last = last.map(|(_, it)| it).max_by_key(|it| it.made);
        let (mut backoff, mut first_made) = (Duration::ZERO, new.made);
        if let Some(last) = last {
            broken.extend(restarted(last, new, at, world));
            first_made = last.first_made;
            let (_, reset) = RESET;
            let ran = last.ended.map(|(end, _)| end.duration_since(last.made)).unwrap_or_default();
            backoff = match last.backoff {
                backoff if backoff.is_zero() || ran > reset => BACKOFF.0,
                backoff => (backoff * 2).min(BACKOFF.1),
            };
        }
        self.broken.extend(broken);
        if let Some(new) = self.containers.get_mut(&key) {
            (new.started, new.backoff, new.first_made) = (Some(at), backoff, first_made);
        }
    }

    fn called(&mut self, at: Instant, runtime: &Arc<str>, call: &Call, world: &World) {
        match call {
            Call::StopContainer(id, grace) => self.stop(at, &(Arc::clone(runtime), id.clone()), *grace, world),
            Call::RemoveContainer(id) => self.killed(runtime, &format!("{id} is removed"), |key, _| key.1 == *id),
            Call::StopSandbox(id) => self.killed(runtime, &format!("{id} is stopped"), |_, it| it.sandbox == *id),
            Call::RemoveSandbox(id) => self.killed(runtime, &format!("{id} is removed"), |_, it| it.sandbox == *id),
            Call::Exec(ExecRequest { container, command, .. }) if *command == ["preStop"] => {
                if let Some(container) = self.containers.get_mut(&(Arc::clone(runtime), container.clone())) {
                    container.is_hooked = true;
                    container.stopping.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    /// Checks that no container dies without having been stopped (I5).
    fn killed(&mut self, runtime: &str, what: &str, is_of: impl Fn(&At<ContainerId>, &Container) -> bool) {
        let running = self.containers.iter().filter(|(key, it)| *key.0 == *runtime && it.runs() && is_of(key, it));
        let broken: Vec<_> = running.map(|(key, _)| format!("I5: {what} while {} runs", key.1)).collect();
        self.broken.extend(broken);
    }

    /// Checks a stop: its cause (I3), its grace, its hook, and its turn (I5).
    fn stop(&mut self, at: Instant, key: &At<ContainerId>, grace: Duration, world: &World) {
        let Some(it) = self.containers.get(key).filter(|it| it.runs()) else { return };
        let of = it.pod;
        let is_unknown = self.unrecorded.contains(&of);
        let (id, pod) = (&key.1, world.version(PODS[of], it.version));
        let role = Role::of(&it.name);
        let mains: Vec<_> = self
            .containers
            .iter()
            .filter(|(other, main)| other.0 == key.0 && main.sandbox == it.sandbox && Role::of(&main.name).is_main())
            .filter(|(_, main)| main.runs())
            .collect();
        let mut broken = Vec::new();
        // A pod that has ended needs its sidecars no more.
        let is_over = role == Role::Side && mains.is_empty() && pod.is_none_or(|pod| pod.policy != Policy::Always);
        let extras = pod.map(|pod| pod.extras(&it.name)).unwrap_or_default();
        let can_be_sick = extras.liveness || extras.post_start;
        let is_caused = world.causes(of).iter().any(|cause| *cause != Cause::Sick || can_be_sick);
        if !is_caused && !is_over && !is_unknown {
            broken.push(format!("I3: {id} is stopped without a cause"));
        }
        if let Some(pod) = pod.filter(|_| !is_unknown) {
            let most = Duration::from_secs(pod.grace.max(2));
            // A hook has its time from the grace period, and a sidecar waits for the others within it.
            let is_whole = role != Role::Side && !extras.pre_stop;
            let least = if is_whole { Duration::from_secs(pod.grace) } else { Duration::ZERO };
            if grace < least || grace > most {
                broken.push(format!("I5: {id} gets a grace of {grace:?}, and the pod's is {} s", pod.grace));
            }
            let is_due = pod.grace > 0 && !grace.is_zero() && extras.pre_stop;
            if is_due && !it.is_hooked {
                broken.push(format!("I5: {id} is stopped before its preStop hook was called"));
            }
            let begun = mains.iter().filter_map(|(_, main)| main.stopping).min();
            let is_late = begun.is_some_and(|begun| at.duration_since(begun) >= Duration::from_secs(pod.grace));
            if let Some((main, _)) = mains.first().filter(|_| role == Role::Side && !is_late) {
                broken.push(format!("I5: sidecar {id} is stopped while {} runs", main.1));
            }
        }
        self.broken.extend(broken);
        if let Some(it) = self.containers.get_mut(key) {
            it.stopping.get_or_insert(at);
            it.is_told = true;
        }
        self.record(of, false, world);
    }
}

/// Checks a restart by policy and back-off (I4). A container that was told to stop did not end by itself.
fn restarted(last: &Container, new: &Container, at: Instant, world: &World) -> Option<String> {
    let (ended, code) = last.ended?;
    let pod = world.version(PODS[new.pod], new.version)?;
    let causes = world.causes(new.pod);
    if last.is_told || causes.contains(&Cause::Asked) || causes.contains(&Cause::Sandbox) {
        return None;
    }
    let role = Role::of(&new.name);
    let restarts = match (role, pod.policy) {
        (Role::Side, _) => true,
        (Role::Init, _) if code == Some(0) => false,
        (_, Policy::Always) => true,
        (_, Policy::OnFailure) => code != Some(0),
        (_, Policy::Never) => false,
    };
    if !restarts {
        return Some(format!("I4: {} is restarted after exit code {code:?} with {:?}", new.name, pod.policy));
    }
    let waited = at.duration_since(ended);
    let ran = ended.duration_since(last.made);
    // An agent that starts later knows how long each of them ran only by the time of day.
    let is_set = world.clock_set.is_some_and(|set| set >= last.first_made);
    let is_reset = ran > RESET.0;
    let is_early = !is_set && !is_reset && waited + Duration::from_millis(2) < last.backoff;
    is_early.then(|| format!("I4: {} is restarted after {waited:?}, before {:?}", new.name, last.backoff))
}

/// Returns the index of the pod that labels name.
fn pod_of(labels: &BTreeMap<String, String>) -> Option<usize> {
    let name = labels.get(labels::POD_NAME)?.strip_suffix("-node")?;
    PODS.iter().position(|pod| *pod == name)
}
