//! Desired state: the pods of all sources, merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use stanchion_plan::reason::Explanation;
use stanchion_pod::{ObjectKey, Objects, Pod, PodKey};

/// Pods that the sources want on this node.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The pods, by name.
    pub pods: BTreeMap<PodKey, DesiredPod>,
    /// `true` once every source is known, from its files or from their last good content. Until then no pod is stopped
    /// because it is missing here (R-SRC-4).
    pub complete: bool,
}

/// Progress of the reconciler.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReconcilerProgress {
    /// Desired state that it has acted on last.
    pub desired: Arc<Desired>,
    /// Pods that may have left something on the node.
    pub present: BTreeSet<PodKey>,
}

/// A pod with its manifest's location and its objects.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Path or URL of its manifest.
    pub manifest: Arc<str>,
    /// `true` if the pod comes from the last good content of the manifest, which an earlier agent kept, and this agent
    /// has not read the present content. The pod that runs may be newer.
    pub is_recalled: bool,
    /// Objects that pods can refer to, as the sources define them now. They do not belong to the pod: its revision does
    /// not change with them.
    pub objects: Arc<Objects>,
    /// Reason why the present content of the manifest is not in force. The pod is then the last good one.
    pub stale: Option<Arc<str>>,
    /// Reason and message if the node lacks the capacity for the pod. The reconciler sets them.
    pub no_capacity: Option<Explanation>,
}

impl DesiredPod {
    /// Returns whether an object that the pod refers to differs from that in `last`, or is missing in one of them.
    pub(crate) fn refers_to_changed_object(&self, last: &Self) -> bool {
        let has_changed = |key: &&ObjectKey| self.objects.get(*key) != last.objects.get(*key);
        !Arc::ptr_eq(&self.objects, &last.objects) && self.pod.references().iter().any(has_changed)
    }

    /// Returns the first missing object that keeps the pod from starting.
    pub(crate) fn missing_object(&self) -> Option<&ObjectKey> {
        self.pod.needs().into_iter().find(|key| !self.objects.contains_key(*key))
    }
}
