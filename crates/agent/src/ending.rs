//! Ends pods in order when the node shuts down, while there is still time (R-SHD-1).
//!
//! Critical pods end last. Nothing is written down: after the next boot all of them run again.

use std::time::{Duration, Instant};

use stanchion_board::{Board, view::PodView};
use stanchion_pod::k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::{clock::timeout_at, config::NodeShutdown, handle::Handle};

/// Time for killing the pods that have not ended in time.
const KILL: Duration = Duration::from_secs(2);
/// Minimum `priority` of critical pods.
const CRITICAL: i32 = 2_000_000_000;
const CRITICAL_CLASSES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// The pods that are to end now, and the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// `true`: critical pods, too.
    pub is_of_critical: bool,
    pub by: Instant,
}

impl Ending {
    /// Returns whether a pod is one of them.
    pub fn is_of(self, pod: &Pod) -> bool {
        self.is_of_critical || !pod.spec.as_ref().is_some_and(is_critical)
    }
}

fn is_critical(spec: &PodSpec) -> bool {
    let class = spec.priority_class_name.as_deref();
    class.is_some_and(|class| CRITICAL_CLASSES.contains(&class)) || spec.priority.is_some_and(|it| it >= CRITICAL)
}

impl<R> Handle<R> {
    /// Ends all pods, because the node shuts down. Returns when they have ended, or the time for it is over.
    pub async fn end_pods(&self, limits: NodeShutdown) {
        let first = limits.grace.saturating_sub(limits.critical);
        for (is_of_critical, time) in [(false, first), (true, limits.critical.min(limits.grace))] {
            let ending = Ending { is_of_critical, by: crate::clock::instant() + time };
            self.ending.send_replace(Some(ending));
            if timeout_at(ending.by + KILL, ended(&self.board, ending)).await.is_err() {
                tracing::warn!(is_of_critical, ?time, "some pods have not ended in time");
            }
        }
    }
}

/// Waits until nothing of these pods runs.
async fn ended(board: &Board, ending: Ending) {
    let mut changes = board.watch();
    let runs = |view: &PodView| {
        let mut states = view.statuses().filter_map(|status| status.state.as_ref());
        ending.is_of(&view.pod) && states.any(|state| state.running.is_some())
    };
    loop {
        changes.mark_unchanged();
        if !board.pods().iter().any(|view| runs(view)) || changes.changed().await.is_err() {
            return;
        }
    }
}
