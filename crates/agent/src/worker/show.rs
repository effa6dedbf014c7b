//! The view of a pod that its worker puts on the board.

use std::sync::Arc;

use jiff::Timestamp;
use stanchion_board::view::{ContainerView, PodView};
use stanchion_plan::{
    image,
    observed::Remains,
    reason::{Because, Reason},
    restart,
    status::{Facts, Phase, Status, status},
    time::Stamp,
    view::View,
};
use stanchion_pod::{
    Pod, PodKey,
    k8s_openapi::{
        api::core::v1 as wire,
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
};
use stanchion_runtime::Runtime;

use super::Worker;
use crate::{blocking::blocking, clock, desired::DesiredPod, policy, removed::remembered};

/// The annotation with the time when the agent first saw a pod (R-ID-8).
const SEEN: &str = "kubernetes.io/config.seen";

impl<R: Runtime> Worker<R> {
    /// Puts the pod on the board as it is now.
    pub(super) fn show(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let Some(pod) = self.shown(desired, remains) else {
            return self.show_orphan(remains);
        };
        let home = self.backend(Some(&pod));
        let view = View { home: home.clone(), remains: remains.to_vec() };
        let last = self.shared.board.pod(&self.key);
        let node_addresses = self.shared.node_addresses.borrow().clone();
        let facts = Facts {
            pod: &pod,
            view: &view,
            history: &self.history,
            obstacle: self.obstacle(&home, &pod),
            rejection: self.rejection(&pod, desired),
            stale: desired.and_then(|desired| self.stale(desired, &pod)),
            node_addresses: &node_addresses,
            first_seen: self.since(&pod),
            last: last.as_ref().and_then(|last| last.pod.status.as_ref()),
            now: clock::instant(),
            time_of_day: self.shared.clock.now(),
        };
        let Status { status, phase } = status(&facts);
        self.tell_end(desired, &pod, phase);
        let dial = &mut self.dial;
        let containers = pod.all_containers().map(|container| {
            let next_try = [
                facts.history.start_failure(&container.name).map(|failure| failure.next_try),
                facts.history.images(&pod, container).filter_map(|image| image.next_try()).max(),
                restart::crash_due(view.newest(&pod, &container.name).as_ref(), facts.history),
            ];
            ContainerView {
                name: container.name.clone(),
                next_try: next_try.into_iter().flatten().max().filter(|at| *at > facts.now).map(|at| dial.shown(at)),
                pull: image::needs(&pod, container).find_map(|need| self.pulls.get(&need.of)).cloned(),
            }
        });
        let containers = containers.collect();
        let manifest = desired.map(|desired| desired.manifest.to_string()).unwrap_or_default();
        let mut shown = wire::Pod { status: Some(status), ..(*pod.wire).clone() };
        let leaving_since = desired.is_none().then(|| self.leaving_since());
        stamp(&mut shown.metadata, self.since(&pod).wall, leaving_since);
        let shown = PodView { pod: shown, backend: home, manifest, containers };
        if desired.is_none()
            && (self.leaving.is_none() || pod.all_containers().any(|it| view.newest(&pod, &it.name).is_some()))
        {
            let manifest = self.last.as_ref().map(|last| last.manifest.to_string()).unwrap_or_default();
            self.leaving = Some(PodView { manifest, ..shown.clone() });
        }
        self.shared.board.set_pod(&self.key, shown);
    }

    /// Keeps the last view of the pod, now that nothing of it is left (R-TERM-7).
    pub(super) async fn remember_pod(&mut self) {
        let Some(last) = self.leaving.take() else { return };
        let (removed, now) = (Arc::clone(&self.shared.removed), self.shared.clock.stamp());
        let pod = remembered(&last, now.wall);
        if let Err(error) = blocking(move || removed.keep(&pod, now)).await {
            tracing::warn!(%error, "cannot save the last status of a removed pod");
        }
    }

    /// Returns the revision that has a sandbox, preferably the wanted one.
    pub(super) fn standing(&self, desired: &DesiredPod, remains: &[(String, Arc<Remains>)]) -> Option<Arc<Pod>> {
        let running = self.running.as_ref().map(|running| &running.pod);
        std::iter::once(&desired.pod).chain(running).find(|pod| stands(pod, remains)).cloned()
    }

    /// Returns the revision to show: one that has a sandbox, else the wanted one, else a recorded one.
    pub(super) fn shown(&self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) -> Option<Arc<Pod>> {
        let stands = |pod: &&Arc<Pod>| stands(pod, remains);
        let wanted = desired.or(self.last.as_ref()).map(|desired| &desired.pod);
        let running = self.running.as_ref().map(|running| &running.pod);
        wanted.filter(stands).or(running.filter(stands)).or(wanted).or(self.left.as_ref()).cloned()
    }

    /// Returns when the agent first saw this revision of the pod: each revision counts its time anew.
    pub(super) fn since(&self, pod: &Pod) -> Stamp {
        let (revision, since) = (self.revised.as_ref(), self.first_seen);
        revision.filter(|(revision, _)| *revision == pod.revision).map_or(since, |(_, since)| *since)
    }

    /// Returns the time since which no source wants the pod.
    fn leaving_since(&self) -> Timestamp {
        self.leaving_since.unwrap_or(self.first_seen.wall)
    }

    /// Tells the reconciler whether the pod has ended by itself: then its capacity is free for others.
    fn tell_end(&self, desired: Option<&DesiredPod>, pod: &Pod, phase: Phase) {
        // A pod that does not fit on the node is shown as `Failed` too.
        let is_refused = desired.is_some_and(|it| it.no_room.is_some() && it.pod.revision == pod.revision);
        if self.over.set((phase.is_over() && !is_refused).then(|| pod.uid.clone())) {
            self.shared.ends.notify_one();
        }
    }

    /// Returns reason and message if this node cannot run a revision of the pod.
    pub(super) fn rejection(&self, pod: &Pod, desired: Option<&DesiredPod>) -> Option<Because> {
        let wanted = desired.filter(|desired| desired.pod.revision == pod.revision);
        let forbidden = || policy::refusal(&self.shared.config.policy, pod);
        self.shared.admission.refusal(pod).or_else(forbidden).or_else(|| wanted?.no_room.clone())
    }

    /// Returns reason and message if the newest manifest is not in force.
    fn stale(&self, desired: &DesiredPod, shown: &Pod) -> Option<Because> {
        if let Some(stale) = &desired.stale {
            return Some(Because::new(Reason::ManifestInvalid, Arc::clone(stale)));
        }
        if shown.revision == desired.pod.revision {
            return None;
        }
        if let Some(why) = self.rejection(&desired.pod, Some(desired)) {
            return Some(why);
        }
        let failed = desired.pod.all_containers().find_map(|container| {
            let (_, image) = self.history.missing_image(&desired.pod, container)?;
            image.failure().map(|failure| Because::new(failure.reason, failure.message.as_str()))
        });
        let lacking = self.history.lacking(&desired.pod).map(|message| Because::new(Reason::ObjectMissing, message));
        failed.or(lacking).or_else(|| Some(Because::new(Reason::Updating, "the new revision is being prepared")))
    }

    /// Shows a pod whose manifest is not known: only its name, while it is being removed.
    fn show_orphan(&mut self, remains: &[(String, Arc<Remains>)]) {
        let PodKey { namespace, name } = self.key.clone();
        let mut pod = wire::Pod::default();
        pod.metadata.name = Some(name);
        pod.metadata.namespace = Some(namespace);
        pod.metadata.uid = self.uids.first().map(ToString::to_string);
        stamp(&mut pod.metadata, self.first_seen.wall, Some(self.leaving_since()));
        let backend = remains.first().map(|(backend, _)| backend.clone()).unwrap_or_default();
        let view = PodView { pod, backend, manifest: String::new(), containers: Vec::new() };
        self.shared.board.set_pod(&self.key, view);
    }
}

/// Sets on a pod when the agent first saw it, and since when no source wants it.
pub(crate) fn stamp(metadata: &mut ObjectMeta, seen: Timestamp, leaving_since: Option<Timestamp>) {
    metadata.creation_timestamp = Some(Time(seen));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SEEN.to_owned(), seen.to_string());
    metadata.deletion_timestamp = leaving_since.map(Time);
}

/// Returns whether a sandbox was made from this revision.
fn stands(pod: &Pod, remains: &[(String, Arc<Remains>)]) -> bool {
    let mut sandboxes = remains.iter().flat_map(|(_, remains)| &remains.sandboxes);
    sandboxes.any(|sandbox| stanchion_plan::is_current(sandbox, pod))
}
