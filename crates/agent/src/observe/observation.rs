//! One look at a backend, sorted by pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;
use stanchion_pod::PodKey;
use stanchion_runtime::{ContainerInfo, Inventory, SandboxInfo, labels};

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
        Self { ticket: 0, seen: false, error: None, since, pods: HashMap::new() }
    }

    pub(crate) fn of(inventory: Inventory, ticket: u64, since: Timestamp) -> Self {
        let mut pods: HashMap<PodKey, Remains> = HashMap::new();
        for sandbox in inventory.sandboxes {
            pods.entry(key(&sandbox.labels)).or_default().sandboxes.push(sandbox);
        }
        for container in inventory.containers {
            pods.entry(key(&container.labels)).or_default().containers.push(container);
        }
        let sorted = |mut remains: Remains| {
            remains.sandboxes.sort_by_key(|sandbox| (sandbox.created_at, sandbox.attempt));
            remains.containers.sort_by_key(|container| (container.attempt, container.created_at));
            Arc::new(remains)
        };
        let pods = pods.into_iter().map(|(key, remains)| (key, sorted(remains))).collect();
        Self { ticket, seen: true, error: None, since, pods }
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

/// The pod that labels speak of. What carries no pod's name is filed under a name that no pod can have, and is swept.
fn key(labels: &BTreeMap<String, String>) -> PodKey {
    let text = |label: &str| labels.get(label).cloned().unwrap_or_default();
    PodKey { namespace: text(labels::POD_NAMESPACE), name: text(labels::POD_NAME) }
}
