//! The inputs of [`plan()`](stanchion_plan::plan), and the rules that hold back its step.

use std::{sync::Arc, time::Duration};

use stanchion_plan as plan;
use stanchion_plan::{Action, Plan, Wanted, reason::Explanation, view::View};
use stanchion_pod::Pod;
use stanchion_runtime::{Runtime, SandboxState};

use super::{
    Worker,
    context::Snapshot,
    recall::{Recall, uid},
};
use crate::clock;

impl<R: Runtime> Worker<R> {
    /// Decides the next step. There is none while the backend cannot be observed, or while a failed step waits for
    /// its retry.
    pub(super) fn decide(&mut self, snapshot: &Snapshot) -> Plan {
        let Snapshot { desired, observed } = snapshot;
        let desired = desired.as_ref();
        let backend = self.location.place(&self.context, desired.map(|desired| &*desired.pod)).backend;
        self.update_memory(snapshot);
        self.record_times(observed);
        if !self.location.is_clear(&self.context, &backend, desired.is_some()) {
            return Plan::default();
        }
        let shutdown_in = self.shutdown_in();
        self.history.set_shutting_down(shutdown_in.is_some());
        let Some(wanted) = self.admitted(snapshot).or(shutdown_in.map(|_| None)) else { return Plan::default() };
        let mut view = View { backend, observed: observed.clone() };
        // Reachable backends come first: the worker can stop their containers now.
        view.observed.put_first(|backend| self.context.is_observed(backend));
        let since = wanted.as_deref().map_or(self.presence.first_seen(), |pod| self.presence.since(pod));
        let wanted = Wanted { pod: wanted.as_deref(), running: self.recall.as_planned(), since, shutdown_in };
        let now = clock::instant();
        let plan = plan::plan(wanted, &view, &self.history, now);
        if let Some(action) = &plan.action {
            let backend = self.backend_of(action, desired);
            // The last observation of a backend that is away may be outdated, so the step waits for the next one.
            let is_away = self.context.shared.slot(&backend).is_some() && !self.context.is_observed(&backend);
            let last = self.presence.last().map(|last| &*last.pod);
            if is_away || (*action == Action::CleanUp && !self.location.is_gone(&self.context, last)) {
                return Plan { action: None, wake_at: plan.wake_at };
            }
        }
        match self.pause.until {
            Some(until) if until > now && plan.action.as_ref().is_some_and(is_paused) => {
                Plan { action: None, wake_at: Some(until) }
            }
            _ => plan,
        }
    }

    /// Returns the time left to stop the pod, if the node shuts down and this pod is to end now.
    fn shutdown_in(&mut self) -> Option<Duration> {
        let phase = self.inbox.shutdown()?;
        let ends_now = self.presence.last().is_none_or(|last| phase.includes(&last.pod.wire));
        ends_now.then(|| phase.by.saturating_duration_since(clock::instant()))
    }

    /// Returns the revision to run: the wanted one if the node admits it and no newer one runs, else the running one.
    /// `Some(None)` means that no source wants the pod. `None` means that the pod waits for a change of its manifest
    /// or of the node.
    fn admitted(&mut self, snapshot: &Snapshot) -> Option<Option<Arc<Pod>>> {
        let Some(desired) = &snapshot.desired else { return Some(None) };
        let running = |recall: &Recall| recall.running().map(|pod| Some(Arc::clone(pod)));
        let Some(Explanation { reason, message }) = self.rejection(&desired.pod, Some(desired)) else {
            self.presence.reject(None);
            return match self.recall.runs_newer(desired, &snapshot.observed) {
                true => running(&self.recall),
                false => Some(Some(Arc::clone(&desired.pod))),
            };
        };
        if self.presence.reject(Some(&desired.pod.revision)) {
            self.context.warn(reason.as_str(), &*message);
        }
        running(&self.recall)
    }

    /// Updates the worker's memory from a snapshot.
    fn update_memory(&mut self, snapshot: &Snapshot) {
        let Snapshot { desired, observed } = snapshot;
        let (sandboxes, containers) = (observed.sandboxes(), observed.containers());
        let labels = sandboxes.clone().map(|it| &it.labels).chain(containers.clone().map(|it| &it.labels));
        self.presence.add(labels.filter_map(uid));
        self.history
            .retain(&sandboxes.clone().map(|it| &it.id).collect(), &containers.clone().map(|it| &it.id).collect());
        let Some(desired) = desired else {
            self.presence.begin_removal(self.context.shared.clock.now());
            // If a source wants the pod again later, its images are requested again.
            self.history.forget_images();
            self.pulls.retain(&[]);
            return;
        };
        if let Some(last) = self.presence.want(desired, self.context.shared.clock.stamp()) {
            if last.pod.revision != desired.pod.revision {
                self.history.begin_revision();
            }
            if desired.refers_to_changed_object(&last) {
                self.history.clear_waits();
            }
        }
        let missing =
            desired.missing_object().map(|object| (desired.pod.revision.clone(), format!("{object} not found")));
        self.history.set_missing_object(missing);
        // A container or sandbox that exists counts as made, even if the call that made it failed.
        for container in containers.filter(|container| plan::is_running(container)) {
            self.history.set_start(&container.name, None);
        }
        if sandboxes.clone().any(|it| it.state == SandboxState::Ready && plan::is_of_revision(it, &desired.pod)) {
            self.history.set_sandbox(None);
        }
        let running = self.recall.running().map(|pod| pod.revision.clone());
        let revisions: Vec<_> = [Some(&desired.pod.revision), running.as_ref()].into_iter().flatten().collect();
        self.history.keep_images(&revisions);
        self.pulls.retain(&revisions);
        self.recall.adopt_sandbox(desired, observed);
    }
}

/// Returns whether a step waits after the failure of any such step. The other steps have back-offs of their own in
/// the history.
fn is_paused(action: &Action) -> bool {
    !matches!(
        action,
        Action::EnsureImages { .. }
            | Action::CreateSandbox { .. }
            | Action::RunContainer(_)
            | Action::StartContainer { .. }
    )
}
