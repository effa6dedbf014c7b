//! One observation of a backend, sorted by pod.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use stanchion_plan::{observed::ObservedPod, time::Stamp};
use stanchion_pod::PodKey;
use stanchion_runtime::{ContainerId, Health, Inventory, labels};

/// Latest observation of a backend. After a failure it still holds the last good one, marked with the error.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Newest request for an observation that this one answers.
    pub ticket: u64,
    /// `true` once an observation has succeeded.
    pub was_observed: bool,
    /// Error of the latest observation, if it failed.
    pub error: Option<String>,
    /// `true` if the latest observation failed because no runtime can be reached, as opposed to one that does not
    /// answer.
    pub is_absent: bool,
    /// Name of the runtime behind the backend, as in the prefix of container ids; empty until the backend has reported
    /// it.
    pub runtime: Arc<str>,
    /// Health that the backend reports, with its failover policy.
    pub health: Arc<Health>,
    /// Time since which observations succeed, or fail.
    pub since: Stamp,
    /// Sandboxes and containers, by pod.
    pub pods: HashMap<PodKey, Arc<ObservedPod>>,
    /// Number of the latest full observation.
    number: u64,
    /// Pods that have been observed alone since then, each with the number of that observation.
    single: HashMap<PodKey, u64>,
}

impl Observation {
    pub(crate) fn none(since: Stamp) -> Self {
        let health = Arc::default();
        Self {
            ticket: 0,
            was_observed: false,
            error: None,
            is_absent: false,
            runtime: Arc::default(),
            health,
            since,
            pods: HashMap::new(),
            number: 0,
            single: HashMap::new(),
        }
    }

    pub(crate) fn of(inventory: Inventory, ticket: u64, since: Stamp) -> Self {
        let mut pods: HashMap<PodKey, Inventory> = HashMap::new();
        for sandbox in inventory.sandboxes {
            pods.entry(key(&sandbox.labels)).or_default().sandboxes.push(sandbox);
        }
        for container in inventory.containers {
            pods.entry(key(&container.labels)).or_default().containers.push(container);
        }
        let pods = pods.into_iter().map(|(key, pod)| (key, Arc::new(ObservedPod::of(pod)))).collect();
        Self { ticket, was_observed: true, pods, ..Self::none(since) }
    }

    /// Gives this full observation the number `number`, and adds later observations of single pods from `last`.
    pub(crate) fn after(mut self, last: &Self, number: u64) -> Self {
        self.number = number;
        for (key, later) in last.single.iter().filter(|(_, later)| **later > number) {
            self.single.insert(key.clone(), *later);
            self.put(key, last.pods.get(key).cloned());
        }
        self
    }

    /// Returns a copy with an observation of one pod, of number `number`; `None` if a later one is known.
    pub(crate) fn with_pod(&self, key: &PodKey, inventory: Inventory, number: u64) -> Option<Self> {
        let latest = self.single.get(key).copied().unwrap_or(self.number);
        if latest > number {
            return None;
        }
        let is_there = !(inventory.sandboxes.is_empty() && inventory.containers.is_empty());
        let mut now = self.clone();
        now.single.insert(key.clone(), number);
        now.put(key, is_there.then(|| Arc::new(ObservedPod::of(inventory))));
        Some(now)
    }

    fn put(&mut self, key: &PodKey, pod: Option<Arc<ObservedPod>>) {
        match pod {
            Some(pod) => self.pods.insert(key.clone(), pod),
            None => self.pods.remove(key),
        };
    }

    /// Replaces the name of the runtime.
    pub(crate) fn with_runtime(self, runtime: Arc<str>) -> Self {
        Self { runtime, ..self }
    }

    /// Replaces the health.
    pub(crate) fn with_health(self, health: Arc<Health>) -> Self {
        Self { health, ..self }
    }

    /// Returns the pod that a container belongs to.
    pub(crate) fn pod_of(&self, container: &ContainerId) -> Option<&PodKey> {
        let has = |pod: &ObservedPod| pod.containers.iter().any(|it| it.id == *container);
        self.pods.iter().find_map(|(key, pod)| has(pod).then_some(key))
    }

    pub(crate) fn failed(&self, error: &str, is_absent: bool, ticket: u64, now: Stamp) -> Self {
        let since = if self.error.is_some() { self.since } else { now };
        Self { ticket, error: Some(error.to_owned()), is_absent, since, ..self.clone() }
    }

    /// Returns whether the latest observation succeeded.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.was_observed && self.error.is_none()
    }
}

/// Returns the pod that labels name. Objects without a pod's name get a key that no pod can have, so that they are
/// removed as orphans.
fn key(labels: &BTreeMap<String, String>) -> PodKey {
    let text = |label: &str| labels.get(label).cloned().unwrap_or_default();
    PodKey { namespace: text(labels::POD_NAMESPACE), name: text(labels::POD_NAME) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use stanchion_runtime::SandboxInfo;

    use super::*;

    fn sandbox(name: &str, attempt: u32) -> SandboxInfo {
        let label = |label: &str, value: &str| (label.to_owned(), value.to_owned());
        SandboxInfo {
            id: format!("{name}-{attempt}").as_str().into(),
            state: stanchion_runtime::SandboxState::Ready,
            addresses: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            attempt,
            labels: [label(labels::POD_NAMESPACE, "default"), label(labels::POD_NAME, name)].into(),
        }
    }

    fn inventory(sandboxes: &[SandboxInfo]) -> Inventory {
        Inventory { sandboxes: sandboxes.to_vec(), containers: Vec::new() }
    }

    fn attempts(observation: &Observation, name: &str) -> Vec<u32> {
        let key = PodKey { namespace: "default".to_owned(), name: name.to_owned() };
        let of = |pod: &Arc<ObservedPod>| pod.sandboxes.iter().map(|sandbox| sandbox.attempt).collect();
        observation.pods.get(&key).map_or_else(Vec::new, of)
    }

    #[test]
    fn of_two_looks_the_one_that_began_later_counts() {
        let key = PodKey { namespace: "default".to_owned(), name: "a".to_owned() };
        let everything = |attempt| {
            Observation::of(inventory(&[sandbox("a", attempt), sandbox("b", 0)]), 0, Timestamp::UNIX_EPOCH.into())
        };
        let none = Observation::none(Timestamp::UNIX_EPOCH.into());
        let second = everything(1).after(&none, 2);
        assert!(
            second.with_pod(&key, inventory(&[sandbox("a", 0)]), 1).is_none(),
            "begun before the look at everything"
        );
        let third = second.with_pod(&key, inventory(&[sandbox("a", 3)]), 4).expect("news");
        assert_eq!((attempts(&third, "a"), attempts(&third, "b")), (vec![3], vec![0]));
        assert!(third.with_pod(&key, inventory(&[]), 3).is_none(), "begun before the other look at this pod");
        assert_eq!(attempts(&everything(2).after(&third, 3), "a"), [3], "begun before the look at this pod");
        assert_eq!(attempts(&everything(5).after(&third, 5), "a"), [5]);
        let gone = third.with_pod(&key, inventory(&[]), 6).expect("news");
        assert_eq!((attempts(&gone, "a"), attempts(&gone, "b")), (vec![], vec![0]));
        assert_eq!(attempts(&everything(4).after(&gone, 5), "a"), [0; 0], "it does not come back");
    }
}
