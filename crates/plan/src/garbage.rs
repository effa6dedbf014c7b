//! Removal of sandboxes and containers that are no longer needed.

use stanchion_pod::Pod;
use stanchion_runtime::{ContainerInfo, ContainerState, SandboxInfo};

use super::{Action, is_of_revision, is_running, view::View};

/// Plans the next removal. Keeps the last dead instance of each container (R-GC-1, R-INIT-8).
pub fn next(pod: &Pod, live: &SandboxInfo, view: &View) -> Option<Action> {
    let backend = view.backend.clone();
    let replaced = |container: &ContainerInfo| {
        pod.container(&container.name).is_some() && view.containers(&live.id).any(|newer| newer.name == container.name)
    };
    for sandbox in view.sandboxes().filter(|sandbox| sandbox.id != live.id) {
        if !is_of_revision(sandbox, pod) || view.containers(&sandbox.id).all(replaced) {
            return Some(Action::RemoveSandbox { backend, id: sandbox.id.clone() });
        }
    }
    for container in pod.all_containers() {
        let dead = view.containers(&live.id).filter(|instance| {
            instance.name == container.name && matches!(instance.state, ContainerState::Exited { .. })
        });
        let mut dead: Vec<_> = dead.collect();
        let newest_runs = view.newest(pod, &container.name).is_some_and(|newest| is_running(newest.container));
        // If the newest instance is dead, a plain init container keeps only that one (R-INIT-8). Others keep one more
        // for `lastState`, sidecars too.
        let is_init = pod.init_containers.contains(container) && !container.runs_always();
        let kept = if newest_runs || is_init { 1 } else { 2 };
        dead.truncate(dead.len().saturating_sub(kept));
        if let Some(oldest) = dead.first() {
            return Some(Action::RemoveContainer { backend, id: oldest.id.clone() });
        }
    }
    None
}
