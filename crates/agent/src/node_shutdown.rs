//! Ends pods in order when the node shuts down, while there is still time (R-SHD-1).
//!
//! Critical pods end last. Nothing is recorded: after the next boot all of them run again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use stanchion_pod::{
    PodKey,
    k8s_openapi::api::core::v1::{Pod, PodSpec},
};
use tokio::sync::watch;

use crate::{clock::timeout_at, config::NodeShutdown, handle::Handle};

/// Time to kill the pods that have not ended in time.
const KILL: Duration = Duration::from_secs(2);
/// Minimum `priority` of critical pods.
const CRITICAL: i32 = 2_000_000_000;
const CRITICAL_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// Phase of the shutdown: the pods that must end now, and the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShutdownPhase {
    /// `true` if critical pods must end too.
    pub includes_critical: bool,
    pub by: Instant,
}

impl ShutdownPhase {
    /// Returns whether a pod must end now.
    pub fn includes(self, pod: &Pod) -> bool {
        self.includes_critical || !pod.spec.as_ref().is_some_and(is_critical)
    }
}

fn is_critical(spec: &PodSpec) -> bool {
    let class = spec.priority_class_name.as_deref();
    class.is_some_and(|class| CRITICAL_CLASSES.contains(&class)) || spec.priority.is_some_and(|it| it >= CRITICAL)
}

/// Phase of the node's shutdown, and the pods that it waits for.
#[derive(Debug, Default)]
pub(crate) struct ShutdownState {
    phase: watch::Sender<Option<ShutdownPhase>>,
    /// Pods with running containers; `true` for critical pods.
    running: watch::Sender<BTreeMap<PodKey, bool>>,
}

impl ShutdownState {
    /// Returns a receiver of the phase; `None` until the node shuts down.
    pub fn subscribe(&self) -> watch::Receiver<Option<ShutdownPhase>> {
        self.phase.subscribe()
    }

    /// Sets whether containers of a pod run. `wanted` is the pod's manifest, if it is known.
    pub fn set_running(&self, key: &PodKey, wanted: Option<&Pod>, runs: bool) {
        let is_critical = wanted.and_then(|pod| pod.spec.as_ref()).is_some_and(is_critical);
        self.running.send_if_modified(|running| match runs {
            true => running.insert(key.clone(), is_critical) != Some(is_critical),
            false => running.remove(key).is_some(),
        });
    }

    /// Waits until no pod of this phase has running containers.
    async fn ended(&self, phase: ShutdownPhase) {
        let mut running = self.running.subscribe();
        let is_done = |running: &BTreeMap<PodKey, bool>| {
            !running.values().any(|is_critical| phase.includes_critical || !is_critical)
        };
        if running.wait_for(is_done).await.is_err() {
            tracing::trace!("the sender is part of this struct");
        }
    }
}

impl<R> Handle<R> {
    /// Ends all pods, because the node shuts down. Returns when they have ended, or after the time limit.
    pub async fn end_pods(&self, limits: NodeShutdown) {
        let first = limits.grace.saturating_sub(limits.critical);
        for (includes_critical, time) in [(false, first), (true, limits.critical.min(limits.grace))] {
            let phase = ShutdownPhase { includes_critical, by: crate::clock::instant() + time };
            self.node_shutdown.phase.send_replace(Some(phase));
            if timeout_at(phase.by + KILL, self.node_shutdown.ended(phase)).await.is_err() {
                tracing::warn!(includes_critical, ?time, "some pods have not ended in time");
            }
        }
    }
}
