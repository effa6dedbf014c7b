//! Updates with little downtime: the old revision runs until the new one can start.

use std::time::Instant;

use stanchion_pod::Pod;
use stanchion_runtime::SandboxState;

use crate::{
    Plan, RunningRevision, Wanted,
    history::{History, ImageState},
    is_of_revision, is_running, remove_from_other_backends, run,
    start::ensure_images,
    view::View,
};

/// Returns whether `pod` replaces another revision, or replaces itself on another backend. The other revision may run,
/// or have crashed or been lost.
pub(super) fn is_update(pod: &Pod, has_other: bool, view: &View) -> bool {
    if view.sandboxes().any(|sandbox| !is_of_revision(sandbox, pod) && view.is_alive(sandbox)) {
        return true;
    }
    let has_begun =
        view.sandboxes().any(|sandbox| is_of_revision(sandbox, pod) && sandbox.state == SandboxState::Ready);
    !has_begun && (has_other || view.observed.elsewhere(&view.backend).containers().any(is_running))
}

/// Keeps the old revision running while the new one lacks images or objects: an update costs little downtime.
pub(super) fn await_update(pod: &Pod, wanted: Wanted<'_>, view: &View, history: &History, now: Instant) -> Plan {
    let running = wanted.running.filter(|running| running.pod.revision != pod.revision);
    if let Some(action) = ensure_images(pod, &pod.all_containers().collect::<Vec<_>>(), history, now) {
        return Plan::act(action);
    }
    let images: Vec<_> = pod.all_containers().flat_map(|container| history.images(pod, container)).collect();
    let next_try = images.iter().filter_map(ImageState::next_try).min();
    let waiting = Plan::default().wake(next_try);
    let Some(RunningRevision { pod: running, backend, is_stopped }) = running else { return waiting };
    let view = View { backend: backend.to_owned(), observed: view.observed.clone() };
    let is_up = view.sandboxes().any(|sandbox| {
        let is_ready = sandbox.state == SandboxState::Ready && !is_stopped;
        is_of_revision(sandbox, running) && (is_ready || view.is_alive(sandbox))
    });
    // A revision that was stopped or lost starts again only when the new one cannot start: the new one's images may be
    // present.
    let cannot_start = history.missing_object(pod).is_some() || images.iter().any(|image| image.failure().is_some());
    if !is_up && !cannot_start {
        return waiting;
    }
    match remove_from_other_backends(&view) {
        Some(action) => Plan::act(action),
        None => run(running, &view, history, wanted.since, now).wake(next_try),
    }
}
