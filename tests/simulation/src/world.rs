//! What the schedule has done to the node: the pods that are wanted, the troubles that last, and the reasons that the agent
//! has to stop a container.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    node::now,
    pod::{Pod, Policy},
    schedule::{BACKENDS, PODS, SOURCES, Schedule},
};

/// Reason to stop a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The manifest was changed or removed.
    Edit,
    /// The sandbox was lost.
    Sandbox,
    /// The pod may move to another backend.
    Move,
    /// A liveness probe or a `postStart` hook fails.
    Sick,
    /// A user has asked for it.
    Asked,
}

/// A trouble that lasts until it is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// No agent runs.
    NoAgent,
    /// The disk is full.
    FullDisk,
    /// A runtime cannot be reached.
    Away(usize),
    /// Calls to a runtime fail, hang or are slow, or its events are lost.
    Faulty(usize),
    /// The directory of a source is away.
    NoSource(usize),
    /// A manifest is invalid.
    Typo(usize),
    /// The registry lacks the image of a pod.
    NoImage(usize),
    /// A command in a pod's containers fails.
    Answer(usize, &'static str),
}

/// What the schedule wants, and what it has done.
#[derive(Debug)]
pub struct World {
    /// Manifests of each pod since it was last at rest, the latest last; `None`: there is none.
    wanted: Vec<Vec<Option<Pod>>>,
    /// Every version that was ever written.
    versions: BTreeMap<(&'static str, u64), Pod>,
    causes: Vec<BTreeSet<Cause>>,
    /// Troubles that last.
    pub troubles: BTreeSet<Trouble>,
    /// When each pod was last disturbed.
    disturbed: Vec<Instant>,
    /// When the clock was last set.
    pub clock_set: Option<Instant>,
    /// Since when the readiness probes of a pod fail.
    unready: BTreeMap<usize, Instant>,
    /// Whether the disk was ever full.
    pub was_full: bool,
    /// Whether pods fail over.
    pub can_move: bool,
    backends: usize,
    is_auto: bool,
}

impl World {
    /// Returns the world at the start of a schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let pods = schedule.pods;
        Self {
            wanted: vec![vec![None]; pods],
            versions: BTreeMap::new(),
            causes: vec![BTreeSet::new(); pods],
            troubles: [Trouble::NoAgent].into(),
            disturbed: vec![now(); pods],
            clock_set: None,
            unready: BTreeMap::new(),
            was_full: false,
            can_move: schedule.failover.is_some() && schedule.backends > 1,
            backends: schedule.backends,
            is_auto: schedule.is_auto,
        }
    }

    /// Returns the indices of the pods.
    pub fn pods(&self) -> std::ops::Range<usize> {
        0..self.wanted.len()
    }

    /// Returns the index of the source of a pod.
    #[must_use]
    pub const fn source_of(pod: usize) -> usize {
        pod * SOURCES / PODS.len()
    }

    /// Notes a manifest that was written or removed.
    pub fn want(&mut self, pod: usize, manifest: Option<Pod>) {
        if let Some(manifest) = &manifest {
            self.versions.insert((manifest.name, manifest.version), manifest.clone());
        }
        self.troubles.remove(&Trouble::Typo(pod));
        self.wanted[pod].push(manifest);
        self.cause(pod, Cause::Edit);
    }

    /// Returns what may be wanted of a pod: with an invalid manifest it is not known which of the earlier ones the agent has
    /// read.
    pub fn wanted(&self, pod: usize) -> impl Iterator<Item = Option<&Pod>> {
        let all = &self.wanted[pod];
        let known = if self.troubles.contains(&Trouble::Typo(pod)) { 0 } else { all.len() - 1 };
        all[known..].iter().map(Option::as_ref)
    }

    /// Returns the manifest of a pod as it was written last.
    #[must_use]
    pub fn latest(&self, pod: usize) -> Option<&Pod> {
        self.wanted[pod].last().and_then(Option::as_ref)
    }

    /// Returns a version of a pod.
    #[must_use]
    pub fn version(&self, name: &str, version: u64) -> Option<&Pod> {
        PODS.iter().find(|pod| **pod == name).and_then(|name| self.versions.get(&(*name, version)))
    }

    /// Notes a reason to stop containers of a pod.
    pub fn cause(&mut self, pod: usize, cause: Cause) {
        self.causes[pod].insert(cause);
        self.disturbed[pod] = now();
    }

    /// Notes that pods may move, if that is configured.
    pub fn may_move(&mut self) {
        // Pods with `runtimeClassName`, and those that may have completed, wait for their backend.
        let flees = |manifest: &Pod| manifest.class.is_none() && manifest.policy == Policy::Always;
        let fleeing: Vec<_> = self.pods().filter(|pod| self.wanted[*pod].iter().flatten().any(flees)).collect();
        if self.can_move {
            fleeing.into_iter().for_each(|pod| self.cause(pod, Cause::Move));
        }
    }

    /// Returns the reasons to stop containers of a pod.
    #[must_use]
    pub fn causes(&self, pod: usize) -> &BTreeSet<Cause> {
        &self.causes[pod]
    }

    /// Notes that a pod runs as wanted, and that no earlier reason counts any more.
    pub fn at_rest(&mut self, pod: usize) {
        self.causes[pod].clear();
        if !self.troubles.contains(&Trouble::Typo(pod)) {
            let earlier = self.wanted[pod].len() - 1;
            self.wanted[pod].drain(..earlier);
        }
    }

    /// Notes that a pod is disturbed, without a reason to stop it.
    pub fn disturb(&mut self, pod: usize) {
        self.disturbed[pod] = now();
    }

    /// Begins a trouble.
    pub fn begin(&mut self, trouble: Trouble) {
        self.troubles.insert(trouble);
        self.was_full |= trouble == Trouble::FullDisk;
        self.strike(trouble);
    }

    /// Ends a trouble. Returns whether there was one.
    pub fn end(&mut self, trouble: Trouble) -> bool {
        let had = self.troubles.remove(&trouble);
        if had {
            self.strike(trouble);
        }
        had
    }

    /// Notes that somebody has set the clock.
    pub fn set_clock(&mut self) {
        self.clock_set = Some(now());
        self.pods().for_each(|pod| self.disturb(pod));
    }

    /// Notes what a command in a pod's containers answers from now on.
    pub fn answer(&mut self, pod: usize, command: &str, is_good: bool) {
        match command {
            "readiness" if is_good => drop(self.unready.remove(&pod)),
            "readiness" => drop(self.unready.entry(pod).or_insert_with(now)),
            "liveness" | "postStart" if !is_good => self.cause(pod, Cause::Sick),
            _ => {}
        }
    }

    /// Returns since when the readiness probe of a container fails.
    #[must_use]
    pub fn unready(&self, pod: usize, container: &str) -> Option<Instant> {
        let has_probe = self.latest(pod).is_some_and(|manifest| manifest.extras(container).readiness);
        self.unready.get(&pod).copied().filter(|_| has_probe)
    }

    fn strike(&mut self, trouble: Trouble) {
        for pod in self.pods().filter(|pod| self.concerns(trouble, *pod)).collect::<Vec<_>>() {
            self.disturb(pod);
        }
    }

    /// Returns whether a trouble can keep a pod from running as wanted.
    fn concerns(&self, trouble: Trouble, pod: usize) -> bool {
        match trouble {
            Trouble::NoAgent | Trouble::FullDisk => true,
            Trouble::Away(backend) | Trouble::Faulty(backend) => self.may_be_on(pod, backend),
            // An agent that has read no source since its start does not know whether that one wants the pod.
            Trouble::NoSource(source) => Self::source_of(pod) == source || self.latest(pod).is_none(),
            Trouble::Typo(_) => false,
            Trouble::NoImage(of) | Trouble::Answer(of, _) => of == pod,
        }
    }

    /// Returns whether a pod may run on a backend, or may have run there.
    fn may_be_on(&self, pod: usize, backend: usize) -> bool {
        let of = |manifest: &Pod| match manifest.class {
            Some(class) => class == backend,
            None => self.is_auto || self.can_move || backend == 0,
        };
        self.backends == 1 || self.wanted[pod].iter().flatten().any(of)
    }

    /// Returns for how long nothing has kept a pod from running as wanted.
    #[must_use]
    pub fn calm(&self, pod: usize) -> Option<Duration> {
        // See `Stage::mean_it`.
        let is_doubted = self.was_full && self.latest(pod).is_none();
        let is_troubled = is_doubted || self.troubles.iter().any(|trouble| self.concerns(*trouble, pod));
        (!is_troubled).then(|| now().duration_since(self.disturbed[pod]))
    }

    /// Returns the backend that a manifest names, if it can run nowhere else.
    #[must_use]
    pub fn only_backend(&self, manifest: &Pod) -> Option<&'static str> {
        match manifest.class {
            Some(class) => Some(BACKENDS[class]),
            None if self.is_auto || self.can_move => None,
            None => Some(BACKENDS[0]),
        }
    }
}
