//! The pods that are to run on this node: those of all sources, merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use stanchion_plan::reason::Explanation;
use stanchion_pod::{ObjectKey, Objects, Pod, PodKey};

/// The pods that the sources want, by name.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The pods.
    pub pods: BTreeMap<PodKey, DesiredPod>,
    /// `true` once every source has named its pods, from its files or from their last good content. Until then no pod is stopped
    /// for being absent here (R-SRC-4).
    pub complete: bool,
}

/// The progress of the reconciler.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReconcilerProgress {
    /// The desired state that it has acted on last.
    pub desired: Arc<Desired>,
    /// Pods of which something may be left on the node.
    pub present: BTreeSet<PodKey>,
}

/// A pod and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Path or URL of its manifest.
    pub manifest: Arc<str>,
    /// `true` if the pod comes from the manifest's last good content, which an earlier agent kept: nobody has read the present
    /// content yet, or nobody can. The pod that runs may be newer.
    pub is_recalled: bool,
    /// The objects that pods can refer to, as the sources have them now. They are not part of the pod: its revision does not
    /// change with them.
    pub objects: Arc<Objects>,
    /// The reason why the present content of that manifest is not in force, or cannot be read; the pod is then the last good one.
    pub stale: Option<Arc<str>>,
    /// Reason and message if the node lacks the capacity for the pod. The reconciler sets them, not a source.
    pub no_capacity: Option<Explanation>,
}

impl DesiredPod {
    /// Tells whether an object that the pod refers to differs from that in `last`, is new, or is gone.
    pub(crate) fn refers_to_changed_object(&self, last: &Self) -> bool {
        let has_changed = |key: &&ObjectKey| self.objects.get(*key) != last.objects.get(*key);
        !Arc::ptr_eq(&self.objects, &last.objects) && self.pod.references().iter().any(has_changed)
    }

    /// Returns the first missing object that the pod cannot start without.
    pub(crate) fn lacks(&self) -> Option<&ObjectKey> {
        self.pod.needs().into_iter().find(|key| !self.objects.contains_key(*key))
    }
}
