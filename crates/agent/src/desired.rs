//! What is to run on this node: all sources merged.

use std::{collections::BTreeMap, sync::Arc};

use stanchion_pod::{Pod, PodKey};

/// The pods that the sources want, by name.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The pods.
    pub pods: BTreeMap<PodKey, DesiredPod>,
    /// Whether every source has told its pods, from its files or from what was last good. Until then nothing is stopped
    /// for being absent here (R-SRC-4).
    pub complete: bool,
}

/// A pod and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredPod {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Path of its manifest.
    pub manifest: Arc<str>,
    /// What is in that manifest: what the pod was decoded from.
    pub content: Arc<[u8]>,
    /// Why the present content of that manifest is not in force, or cannot be read; the pod is the last good one.
    pub stale: Option<Arc<str>>,
}
