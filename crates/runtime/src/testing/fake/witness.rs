//! Invariants that the agent must keep, whatever goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use super::{lock, state::State};
use crate::SandboxState;

/// A broken promise of the agent (invariant I1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// Two ready sandboxes of one pod at once.
    TwoSandboxes {
        /// The pod, as `namespace/name`.
        pod: String,
        /// The sandboxes, as `runtime/id`.
        sandboxes: Vec<String>,
    },
    /// Two running containers of one name in one pod at once.
    TwoContainers {
        /// UID of the pod.
        uid: String,
        /// Name of the container.
        name: String,
        /// The containers, as `runtime/id`.
        containers: Vec<String>,
    },
}

/// Live objects by runtime: identity and id of each.
type Live<K> = BTreeMap<String, Vec<(K, String)>>;

/// Observer of every state of one or more runtimes on a node.
#[derive(Default)]
pub(super) struct Witness {
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    /// Ready sandboxes, by pod.
    sandboxes: Live<String>,
    /// Running containers, by pod uid and name.
    containers: Live<(String, String)>,
    violations: BTreeSet<Violation>,
}

impl Witness {
    pub(super) fn violations(&self) -> Vec<Violation> {
        lock(&self.ledger).violations.iter().cloned().collect()
    }

    pub(super) fn inspect(&self, runtime: &str, state: &State) {
        let sandboxes = state
            .sandboxes
            .values()
            .filter(|sandbox| sandbox.info.state == SandboxState::Ready)
            .map(|sandbox| (sandbox.pod(), format!("{runtime}/{}", sandbox.info.id)))
            .collect();
        let containers = state
            .containers
            .values()
            .filter(|container| container.is_running())
            .map(|container| {
                ((container.uid.clone(), container.info.name.clone()), format!("{runtime}/{}", container.info.id))
            })
            .collect();
        let mut ledger = lock(&self.ledger);
        ledger.sandboxes.insert(runtime.to_owned(), sandboxes);
        ledger.containers.insert(runtime.to_owned(), containers);
        let doubles: Vec<_> = doubled(ledger.sandboxes.values())
            .map(|(pod, sandboxes)| Violation::TwoSandboxes { pod, sandboxes })
            .chain(doubled(ledger.containers.values()).map(|((uid, name), containers)| Violation::TwoContainers {
                uid,
                name,
                containers,
            }))
            .collect();
        ledger.violations.extend(doubles);
    }
}

/// Returns the keys that occur more than once, with their ids.
fn doubled<'a, K: Ord + Clone + 'a>(
    lists: impl Iterator<Item = &'a Vec<(K, String)>>,
) -> impl Iterator<Item = (K, Vec<String>)> {
    let mut by_key: BTreeMap<K, Vec<String>> = BTreeMap::new();
    for (key, id) in lists.flatten() {
        by_key.entry(key.clone()).or_default().push(id.clone());
    }
    by_key.into_iter().filter(|(_, ids)| ids.len() > 1)
}
