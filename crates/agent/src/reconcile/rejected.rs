//! Shows the status of pods that the node rejects and that have no worker.

use std::sync::Arc;

use stanchion_board::{
    Subject,
    view::{ContainerView, PodView},
};
use stanchion_plan::{reason::Explanation, status, time::Stamp};
use stanchion_pod::{Pod, PodKey, k8s_openapi::api::core::v1 as wire};

use crate::{desired::DesiredPod, policy, shared::Shared, worker::stamp};

/// A rejected pod, with its status as last published.
#[derive(Debug)]
pub(super) struct RejectedPod {
    pod: Arc<Pod>,
    manifest: Arc<str>,
    why: Explanation,
    since: Stamp,
}

impl RejectedPod {
    /// Shows that a pod is rejected, with one event for each revision. `last` is the state last shown.
    pub fn show<R>(
        shared: &Shared<R>,
        key: &PodKey,
        wanted: &DesiredPod,
        no_capacity: &Explanation,
        last: Option<Self>,
    ) -> Self {
        let DesiredPod { pod, manifest, .. } = wanted;
        let forbidden = || policy::rejection(&shared.config.policy, pod);
        let why = shared.admission.rejection(pod).or_else(forbidden).unwrap_or_else(|| no_capacity.clone());
        let last = last.filter(|last| last.pod.revision == pod.revision);
        if let Some(last) = last.as_ref().filter(|last| last.why == why && last.manifest == *manifest) {
            return Self { pod: Arc::clone(pod), manifest: Arc::clone(manifest), why, since: last.since };
        }
        let since = last.as_ref().map_or_else(|| shared.clock.stamp(), |last| last.since);
        if last.is_none() {
            shared.events.warning(&Subject::pod(key), why.reason.as_str(), &*why.message);
        }
        let status = status::rejected(pod, &shared.node_addresses.borrow(), since.wall, &why);
        let mut shown = wire::Pod { status: Some(status), ..(*pod.wire).clone() };
        stamp(&mut shown.metadata, since.wall, None);
        let containers =
            pod.all_containers().map(|it| ContainerView { name: it.name.clone(), ..ContainerView::default() });
        let (manifest_path, containers) = (manifest.to_string(), containers.collect());
        shared.board.set_pod(key, PodView { pod: shown, backend: String::new(), manifest: manifest_path, containers });
        Self { pod: Arc::clone(pod), manifest: Arc::clone(manifest), why, since }
    }
}
