//! One look at a backend, sorted by pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use stanchion_pod::PodKey;
use stanchion_runtime::{ContainerId, ContainerInfo, Inventory, SandboxInfo, labels};

/// The latest look at a backend. After a failed look it still holds the last good one, marked with the error.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The newest request for a look that this one answers.
    pub ticket: u64,
    /// Whether any look has succeeded.
    pub seen: bool,
    /// Why the latest look failed.
    pub error: Option<String>,
    /// Since when looks succeed, or fail.
    pub since: Timestamp,
    /// What exists, by pod.
    pub pods: HashMap<PodKey, Arc<Remains>>,
    /// Pods that were looked at by themselves, each with the number of that look.
    single: HashMap<PodKey, u64>,
}

/// What exists of one pod in one backend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// Its sandboxes, oldest attempt first.
    pub sandboxes: Vec<SandboxInfo>,
    /// Its containers, oldest attempt first.
    pub containers: Vec<ContainerInfo>,
}

impl Observation {
    pub(crate) fn none(since: Timestamp) -> Self {
        Self { ticket: 0, seen: false, error: None, since, pods: HashMap::new(), single: HashMap::new() }
    }

    pub(crate) fn of(inventory: Inventory, ticket: u64, since: Timestamp) -> Self {
        let mut pods: HashMap<PodKey, Remains> = HashMap::new();
        for sandbox in inventory.sandboxes {
            pods.entry(key(&sandbox.labels)).or_default().sandboxes.push(sandbox);
        }
        for container in inventory.containers {
            pods.entry(key(&container.labels)).or_default().containers.push(container);
        }
        let pods = pods.into_iter().map(|(key, remains)| (key, Arc::new(remains.sorted()))).collect();
        Self { ticket, seen: true, error: None, since, pods, single: HashMap::new() }
    }

    /// This look at everything, the number of which is `look`, with what later looks at single pods have shown.
    pub(crate) fn after(mut self, last: &Self, look: u64) -> Self {
        for (key, number) in last.single.iter().filter(|(_, number)| **number > look) {
            self.single.insert(key.clone(), *number);
            self.put(key, last.pods.get(key).cloned());
        }
        self
    }

    /// The same with a look at one pod, the number of which is `look`; `None` where a later one is known.
    pub(crate) fn with_pod(&self, key: &PodKey, inventory: Inventory, look: u64) -> Option<Self> {
        if self.single.get(key).is_some_and(|last| *last > look) {
            return None;
        }
        let Inventory { sandboxes, containers } = inventory;
        let is_there = !(sandboxes.is_empty() && containers.is_empty());
        let mut now = self.clone();
        now.single.insert(key.clone(), look);
        now.put(key, is_there.then(|| Arc::new(Remains { sandboxes, containers }.sorted())));
        Some(now)
    }

    fn put(&mut self, key: &PodKey, remains: Option<Arc<Remains>>) {
        match remains {
            Some(remains) => self.pods.insert(key.clone(), remains),
            None => self.pods.remove(key),
        };
    }

    /// The pod that a container belongs to.
    pub(crate) fn pod_of(&self, container: &ContainerId) -> Option<&PodKey> {
        let has = |remains: &Remains| remains.containers.iter().any(|it| it.id == *container);
        self.pods.iter().find_map(|(key, remains)| has(remains).then_some(key))
    }

    pub(crate) fn failed(&self, error: &str, ticket: u64, now: Timestamp) -> Self {
        let since = if self.error.is_some() { self.since } else { now };
        Self { ticket, error: Some(error.to_owned()), since, ..self.clone() }
    }

    /// Whether this is how things are, as far as the backend can tell.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.seen && self.error.is_none()
    }
}

impl Remains {
    fn sorted(mut self) -> Self {
        self.sandboxes.sort_by_key(|sandbox| (sandbox.created_at, sandbox.attempt));
        self.containers.sort_by_key(|container| (container.attempt, container.created_at));
        self
    }
}

/// The pod that labels speak of. What carries no pod's name is filed under a name that no pod can have, and is swept.
fn key(labels: &BTreeMap<String, String>) -> PodKey {
    let text = |label: &str| labels.get(label).cloned().unwrap_or_default();
    PodKey { namespace: text(labels::POD_NAMESPACE), name: text(labels::POD_NAME) }
}
