//! Events for changes that nobody requested: back-off, deadline exceeded.

use std::{sync::Arc, time::Instant};

use stanchion_plan::{
    history::ImageState,
    image::{self, Need},
    is_of_revision,
    outcome::PodOutcome,
    reason::Reason,
    restart,
    status::DEADLINE_EXCEEDED,
    view::View,
};
use stanchion_pod::Pod;
use stanchion_runtime::{Runtime, SandboxState};

use super::{Worker, context::Snapshot, pulls};
use crate::clock::instant;

impl<R: Runtime> Worker<R> {
    /// Emits one event for each container that waits for its restart (R-BCK-4) or its image, and one when the pod is
    /// past its `activeDeadlineSeconds` (R-ADL-1).
    pub(super) fn announce(&mut self, snapshot: &Snapshot, pod: Option<&Arc<Pod>>) {
        let (Some(wanted), Some(pod)) = (&snapshot.desired, pod) else { return };
        let view =
            View { backend: self.location.backend(&self.context, Some(pod)), observed: snapshot.observed.clone() };
        let now = instant();
        let outcome = PodOutcome::of(pod, &view, &self.history, self.presence.since(pod), now);
        let has_sandbox =
            |view: &View| view.sandboxes().any(|it| is_of_revision(it, pod) && it.state == SandboxState::Ready);
        if outcome == PodOutcome::DeadlineExceeded
            && has_sandbox(&view)
            && self.presence.announce_deadline(&pod.revision)
        {
            self.context.events().normal(&self.context.subject(), "DeadlineExceeded", DEADLINE_EXCEEDED);
        }
        if outcome.is_terminal() {
            return;
        }
        // The images of an update are pulled while the old revision still runs.
        for need in wanted.pod.all_containers().flat_map(|container| image::needs(&wanted.pod, container)) {
            self.announce_image(&wanted.pod, &need, now);
        }
        for container in pod.all_containers() {
            let newest = view.newest(pod, &container.name);
            let waits = restart::crash_due(newest.as_ref(), &self.history).is_some_and(|due| due > now);
            let Some(info) = newest.as_ref().map(|it| it.container).filter(|_| waits) else { continue };
            if restart::wants_start(pod, container, newest.as_ref(), &self.history)
                && self.history.mark_waiting(&info.id)
            {
                let (name, key) = (&container.name, &self.context.key);
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    key.name, key.namespace, pod.uid
                );
                self.context.events().warning(&self.context.container(Some(pod), name), "BackOff", message);
            }
        }
    }

    /// Emits one `BackOff` event for each failed pull of an image (R-IMG-4).
    fn announce_image(&mut self, pod: &Pod, need: &Need<'_>, now: Instant) {
        let ImageState::Failed(failure) = self.history.image(&pod.revision, &need.of) else { return };
        if failure.reason != Reason::ErrImagePull || failure.is_new(now) {
            return;
        }
        if !self.history.mark_waiting_for_image(&pod.revision, &need.of, &failure) {
            return;
        }
        let (subject, users) = pulls::subjects(&self.context, pod, &need.of);
        let message = format!("Back-off pulling image \"{}\"", need.image);
        self.context.events().normal(&subject, "BackOff", message);
        for user in users {
            self.context.events().warning(&user, "Failed", "Error: ImagePullBackOff");
        }
    }
}
