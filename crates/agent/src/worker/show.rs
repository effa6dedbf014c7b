//! The view of a pod that its worker puts on the board.

use std::sync::Arc;

use jiff::Timestamp;
use stanchion_board::view::{ContainerView, PodView};
use stanchion_plan::{
    image, is_running,
    mutant::{self, Mutant},
    observed::Observed,
    reason::{Explanation, Reason},
    restart,
    status::{Facts, Phase, Status, status},
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

use super::{Worker, context::Snapshot, presence::Presence, pulls::Pulls};
use crate::{clock, desired::DesiredPod, policy, shared::Shared};

/// Annotation with the time at which the agent first saw a pod (R-ID-8).
const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

impl<R: Runtime> Worker<R> {
    /// Puts the pod on the board as it is now.
    pub(super) fn show(&mut self, snapshot: &Snapshot) {
        let last = self.presence.last().map(|last| &*last.pod.wire);
        self.context.shared.node_shutdown.set_running(
            &self.context.key,
            last,
            snapshot.observed.containers().any(is_running),
        );
        let Some(pod) = self.pod_to_show(snapshot) else { return self.show_orphan(&snapshot.observed) };
        let (context, desired) = (&self.context, snapshot.desired.as_ref());
        let backend = self.location.backend(context, Some(&pod));
        let view = View { backend: backend.clone(), observed: snapshot.observed.clone() };
        let last = context.shared.board.pod(&context.key);
        if mutant::is_on(Mutant::ShowsOnce) && desired.is_some() && last.as_deref().is_some_and(is_shown_running) {
            return;
        }
        let node_addresses = context.shared.node_addresses.borrow().clone();
        let runtime = context.shared.slot(&backend).map(|slot| Arc::clone(&slot.observer.latest().runtime));
        let facts = Facts {
            pod: &pod,
            view: &view,
            runtime: &runtime.unwrap_or_default(),
            history: &self.history,
            obstacle: self.location.obstacle(context, &backend, &pod),
            rejection: self.rejection(&pod, desired),
            stale: desired.and_then(|desired| self.stale(desired, &pod)),
            node_addresses: &node_addresses,
            first_seen: self.presence.since(&pod),
            last: last.as_ref().and_then(|last| last.pod.status.as_ref()),
            now: clock::instant(),
            time_of_day: context.shared.clock.now(),
        };
        let Status { status, phase } = status(&facts);
        self.report_end(desired, &pod, phase);
        let containers = container_views(&facts, &self.pulls, &mut self.presence);
        let manifest = desired.map(|desired| desired.manifest.to_string()).unwrap_or_default();
        let mut shown = wire::Pod { status: Some(status), ..(*pod.wire).clone() };
        let deleted_since = desired.is_none().then(|| self.presence.deleted_since());
        stamp(&mut shown.metadata, self.presence.since(&pod).wall, deleted_since);
        let shown = PodView { pod: shown, backend, manifest, containers };
        if desired.is_none() {
            let is_whole = pod.all_containers().any(|it| view.newest(&pod, &it.name).is_some());
            self.presence.keep_view(&shown, is_whole);
        }
        self.context.shared.board.set_pod(&self.context.key, shown);
    }

    /// Returns the revision to show.
    pub(super) fn pod_to_show(&self, snapshot: &Snapshot) -> Option<Arc<Pod>> {
        self.recall.pod_to_show(snapshot, self.presence.last())
    }

    /// Tells the reconciler whether the pod has ended by itself, which frees its capacity for other pods.
    fn report_end(&self, desired: Option<&DesiredPod>, pod: &Pod, phase: Phase) {
        // A pod without capacity is shown as `Failed` too, but has not ended.
        let is_rejected = desired.is_some_and(|it| it.no_capacity.is_some() && it.pod.revision == pod.revision);
        if self.presence.set_ended((phase.is_terminal() && !is_rejected).then(|| pod.uid.clone())) {
            self.context.shared.pod_ended.notify_one();
        }
    }

    /// Returns reason and message if the node rejects a revision of the pod.
    pub(super) fn rejection(&self, pod: &Pod, desired: Option<&DesiredPod>) -> Option<Explanation> {
        let Shared { admission, config, .. } = &*self.context.shared;
        let wanted = desired.filter(|desired| desired.pod.revision == pod.revision);
        let forbidden = || policy::rejection(&config.policy, pod);
        admission.rejection(pod).or_else(forbidden).or_else(|| wanted?.no_capacity.clone())
    }

    /// Returns reason and message if the newest manifest is not in force.
    fn stale(&self, desired: &DesiredPod, shown: &Pod) -> Option<Explanation> {
        if let Some(stale) = &desired.stale {
            return Some(Explanation::new(Reason::ManifestInvalid, Arc::clone(stale)));
        }
        if shown.revision == desired.pod.revision {
            return None;
        }
        if let Some(why) = self.rejection(&desired.pod, Some(desired)) {
            return Some(why);
        }
        let failed = desired.pod.all_containers().find_map(|container| {
            let (_, image) = self.history.missing_image(&desired.pod, container)?;
            image.failure().map(|failure| Explanation::new(failure.reason, failure.message.as_str()))
        });
        let missing =
            self.history.missing_object(&desired.pod).map(|message| Explanation::new(Reason::ObjectMissing, message));
        failed.or(missing).or_else(|| Some(Explanation::new(Reason::Updating, "the new revision is being prepared")))
    }

    /// Shows a pod without a known manifest: only its name, while it is being removed.
    fn show_orphan(&self, observed: &Observed) {
        let PodKey { namespace, name } = self.context.key.clone();
        let mut pod = wire::Pod::default();
        pod.metadata.name = Some(name);
        pod.metadata.namespace = Some(namespace);
        pod.metadata.uid = self.presence.uids().first().map(ToString::to_string);
        stamp(&mut pod.metadata, self.presence.first_seen().wall, Some(self.presence.deleted_since()));
        let backend = observed.backends().next().map(|(backend, _)| backend.to_owned()).unwrap_or_default();
        let view = PodView { pod, backend, manifest: String::new(), containers: Vec::new() };
        self.context.shared.board.set_pod(&self.context.key, view);
    }
}

/// Returns the data of each container for which Kubernetes' status has no field.
fn container_views(facts: &Facts<'_>, pulls: &Pulls, presence: &mut Presence) -> Vec<ContainerView> {
    let containers = facts.pod.all_containers().map(|container| {
        let next_try = [
            facts.history.start_failure(&container.name).map(|failure| failure.next_try),
            facts.history.images(facts.pod, container).filter_map(|image| image.next_try()).max(),
            restart::crash_due(facts.view.newest(facts.pod, &container.name).as_ref(), facts.history),
        ];
        let next_try = next_try.into_iter().flatten().max().filter(|at| *at > facts.now);
        ContainerView {
            name: container.name.clone(),
            next_try: next_try.map(|at| presence.time_of_day(at)),
            pull: image::needs(facts.pod, container).find_map(|need| pulls.progress(&need.of)).cloned(),
        }
    });
    containers.collect()
}

/// Sets the creation and deletion timestamps of a pod, and the annotation with the time at which the agent first saw
/// it.
pub(crate) fn stamp(metadata: &mut ObjectMeta, first_seen: Timestamp, deleted_since: Option<Timestamp>) {
    metadata.creation_timestamp = Some(Time(first_seen));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(SEEN_ANNOTATION.to_owned(), first_seen.to_string());
    metadata.deletion_timestamp = deleted_since.map(Time);
}

/// Returns whether the shown phase of a pod is `Running`.
fn is_shown_running(view: &PodView) -> bool {
    view.pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}
