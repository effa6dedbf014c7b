//! What is in a pod's emptyDirs, held against their `sizeLimit`: a pod that fills the node's disk is evicted.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use stanchion_pod::{Medium, Pod, Volume};
use stanchion_runtime::{Runtime, SandboxInfo};
use tokio::time::Instant;

use super::Worker;
use crate::{
    clock::later,
    desired::DesiredPod,
    events::Subject,
    files::{self, PodFiles},
    observe::Remains,
    plan::is_current,
};

/// How often volumes are measured, as a kubelet does it.
const PERIOD: Duration = Duration::from_secs(10);
/// Measuring takes at most one part in so many of the time.
const SHARE: u32 = 50;

impl<R: Runtime> Worker<R> {
    /// Measures the volumes of what stands, if that is due, and notes the pod's eviction. When to measure again; never for
    /// a pod without such volumes.
    pub(super) async fn measure(
        &mut self,
        desired: Option<&DesiredPod>,
        remains: &[(String, Arc<Remains>)],
    ) -> Option<Timestamp> {
        let pod = self.standing(desired?, remains).filter(|pod| limited(pod).next().is_some())?;
        let now = self.shared.clock.now();
        let stays = |sandbox: &SandboxInfo| is_current(sandbox, &pod) && !self.history.is_condemned(&sandbox.id);
        let mut sandboxes = remains.iter().flat_map(|(_, remains)| &remains.sandboxes);
        if self.history.evicted(&pod).is_some() || !sandboxes.any(stays) {
            return None;
        }
        if let Some(next) = self.measure_at.filter(|next| *next > now) {
            return Some(next);
        }
        let (files, measured, begun) = (self.files(pod.uid.clone()), Arc::clone(&pod), Instant::now());
        let found = match tokio::task::spawn_blocking(move || exceeded(&measured, &files)).await {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if let Some((message, is_new)) = found {
            if is_new {
                self.shared.events.warning(&Subject::pod(&self.key), "Evicted", &message);
            }
            self.history.set_evicted(Some((pod.revision.clone(), message)));
            return None;
        }
        let next = later(self.shared.clock.now(), PERIOD.max(begun.elapsed() * SHARE));
        self.measure_at = Some(next);
        Some(next)
    }
}

/// Volumes on disk with a limit: a tmpfs keeps its own.
fn limited(pod: &Pod) -> impl Iterator<Item = (&str, u64)> {
    pod.volumes.iter().filter_map(|(name, volume)| match volume {
        Volume::EmptyDir { medium: Medium::Disk, size_limit: Some(limit) } => Some((name.as_str(), *limit)),
        _ => None,
    })
}

/// The first volume that has more than it may, in a kubelet's words, and whether that was not known. It is written down:
/// an agent that comes after this one does not start the pod again.
fn exceeded(pod: &Pod, files: &PodFiles) -> Option<(String, bool)> {
    if let Ok(message) = files.eviction() {
        return Some((message, false));
    }
    let (name, limit) = limited(pod).find(|(name, limit)| files::usage(&files.empty_dir(name)) > *limit)?;
    let volumes = pod.wire.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let written =
        volumes.filter(|volume| volume.name == name).find_map(|it| it.empty_dir.as_ref()?.size_limit.as_ref());
    let written = written.map_or_else(|| limit.to_string(), |written| written.0.clone());
    let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {written:?}. ");
    if let Err(error) = files.keep_eviction(&message) {
        tracing::warn!(pod = %pod.key, %error, "an eviction cannot be written down; it will be found again");
    }
    Some((message, true))
}
