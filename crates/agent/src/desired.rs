//! What is to run on this node: all sources merged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use stanchion_pod::{ObjectKey, Objects, Pod, PodKey};

/// The pods that the sources want, by name.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The pods.
    pub pods: BTreeMap<PodKey, DesiredPod>,
    /// Whether every source has told its pods, from its files or from what was last good. Until then nothing is stopped
    /// for being absent here (R-SRC-4).
    pub complete: bool,
}

/// How far the reconciler has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    /// What it has last acted on.
    pub desired: Arc<Desired>,
    /// The pods of which something may be left on the node.
    pub present: BTreeSet<PodKey>,
}

/// A pod and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Path or URL of its manifest.
    pub manifest: Arc<str>,
    /// Whether the pod is what an earlier agent kept of that manifest, whose present content nobody has read yet, or could. What
    /// runs may be newer.
    pub is_recalled: bool,
    /// What pods can refer to, as the sources have it now. Not part of the pod: its revision does not change with it.
    pub objects: Arc<Objects>,
    /// Why the present content of that manifest is not in force, or cannot be read; the pod is the last good one.
    pub stale: Option<Arc<str>>,
    /// Why there is no room for the pod on the node: reason and message. The reconciler's word, no source's.
    pub no_room: Option<(&'static str, String)>,
}

impl DesiredPod {
    /// Whether something that the pod refers to is another than in `last`, or was not there, or is not any more.
    pub(crate) fn refers_to_news(&self, last: &Self) -> bool {
        let is_news = |key: &&ObjectKey| self.objects.get(*key) != last.objects.get(*key);
        !Arc::ptr_eq(&self.objects, &last.objects) && self.pod.references().iter().any(is_news)
    }

    /// What the pod cannot start without and is not there.
    pub(crate) fn lacks(&self) -> Option<&ObjectKey> {
        self.pod.needs().into_iter().find(|key| !self.objects.contains_key(*key))
    }
}
