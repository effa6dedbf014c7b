//! Disk usage of a pod: `sizeLimit` of emptyDirs and `ephemeral-storage` of containers limit it. A pod that exceeds a
//! limit is evicted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan::{history::History, is_of_revision, is_running, observed::Observed, time::after};
use stanchion_pod::{Medium, Pod, Volume};
use stanchion_runtime::{ContainerInfo, DiskUsage, ErrorKind, Runtime, SandboxInfo};
use stanchion_untrusted::tree;

use super::context::Context;
use crate::{
    blocking,
    clock::{elapsed, instant},
    files::{self, PodFiles},
};

/// Interval between measurements of a pod, as with a kubelet.
const PERIOD: Duration = Duration::from_secs(10);
/// Wait before the next try while many other pods are being measured.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// Minimum wait after a measurement, as a multiple of its duration.
const PAUSE_FACTOR: u32 = 50;
/// Name of the resource in manifests.
const STORAGE: &str = "ephemeral-storage";

/// Disk usage of running containers as the runtime reports it, by name.
type DiskUsages = Vec<(String, DiskUsage)>;

/// Schedule of the measurements of a pod.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Time of the next measurement.
    next: Option<Instant>,
}

impl Usage {
    /// Measures the pod if that is due, and records its eviction. `pod` is the revision that has a sandbox. Returns the
    /// time of the next measurement; `None` for a pod without limits.
    pub async fn sync<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: Option<&Arc<Pod>>,
        observed: &Observed,
        history: &mut History,
    ) -> Option<Instant> {
        let pod = pod.filter(|pod| is_limited(pod))?;
        let now = instant();
        let stays = |sandbox: &SandboxInfo| is_of_revision(sandbox, pod) && !history.is_sandbox_to_restart(&sandbox.id);
        if history.evicted(pod).is_some() || !observed.sandboxes().any(stays) {
            return None;
        }
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Some(next);
        }
        let Some(permit) = files::to_measure() else {
            self.next = Some(after(now, BUSY_RETRY));
            return self.next;
        };
        let begun = instant();
        let used = match pod.total.ephemeral_storage_limit {
            Some(_) => used(context, pod, observed).await,
            None => Some(DiskUsages::new()),
        };
        let (files, measured) = (context.files(pod.uid.clone()), Arc::clone(pod));
        let measure = move || {
            let _permit = permit;
            exceeded(&measured, &files, used.as_ref())
        };
        if let Some((message, is_new)) = blocking(measure).await {
            if is_new {
                context.warn("Evicted", &*message);
            }
            history.set_evicted(Some((pod.revision.clone(), message)));
            return None;
        }
        let next = after(instant(), PERIOD.max(elapsed(begun) * PAUSE_FACTOR));
        self.next = Some(next);
        Some(next)
    }
}

/// Returns the disk usage of the running containers as the backend reports it; `None` while it does not answer.
async fn used<R: Runtime>(context: &Context<R>, pod: &Pod, observed: &Observed) -> Option<DiskUsages> {
    let mut used = DiskUsages::new();
    for (backend, there) in observed.backends() {
        let sandboxes: Vec<_> = there.sandboxes.iter().filter(|it| is_of_revision(it, pod)).collect();
        let is_own = |container: &&ContainerInfo| sandboxes.iter().any(|sandbox| sandbox.id == container.sandbox);
        for container in there.containers.iter().filter(is_own).filter(|it| is_running(it)) {
            let runtime = context.runtime(backend).ok()?;
            let answer = tokio::select! {
                // *Cancel-safe:* the call only reads.
                answer = runtime.disk_usage(container.id.clone()) => answer,
                () = context.until_away(backend) => return None,
            };
            match answer {
                Ok(usage) => used.push((container.name.clone(), usage)),
                // The container has ended meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    let message = format!(
                        "Backend {backend} cannot tell what containers write to their root file systems: of {STORAGE} only \
                         logs and emptyDirs are counted"
                    );
                    context.warn("StorageNotMeasured", message);
                    used.push((container.name.clone(), DiskUsage::default()));
                }
                Err(error) => {
                    tracing::warn!(error = error.chain(), "cannot get a container's disk usage");
                    return None;
                }
            }
        }
    }
    Some(used)
}

/// Returns whether the pod has a disk limit.
fn is_limited(pod: &Pod) -> bool {
    pod.total.ephemeral_storage_limit.is_some() || sized(pod).next().is_some()
}

/// Returns the emptyDirs on disk that have a limit. A tmpfs enforces its own.
fn sized(pod: &Pod) -> impl Iterator<Item = (&str, u64)> {
    on_disk(pod).filter_map(|(name, limit)| Some((name, limit?)))
}

/// Returns the pod's emptyDirs on disk, with their limits.
fn on_disk(pod: &Pod) -> impl Iterator<Item = (&str, Option<u64>)> {
    pod.volumes.iter().filter_map(|(name, volume)| match volume {
        Volume::EmptyDir { medium: Medium::Disk, size_limit } => Some((name.as_str(), *size_limit)),
        _ => None,
    })
}

/// Returns the message for the first exceeded limit, in a kubelet's order and words, and whether it is new. Writes the
/// eviction down: the next agent must not start the pod again.
fn exceeded(pod: &Pod, files: &PodFiles, used: Option<&DiskUsages>) -> Option<(String, bool)> {
    if let Ok(message) = files.eviction() {
        return Some((message, false));
    }
    let message = volume_exceeded(pod, files).or_else(|| storage_exceeded(pod, files, used?))?;
    if let Err(error) = files.keep_eviction(&message) {
        tracing::warn!(%error, "an eviction cannot be written down; it will be found again");
    }
    Some((message, true))
}

fn volume_exceeded(pod: &Pod, files: &PodFiles) -> Option<String> {
    let (name, limit) = sized(pod).find(|(name, limit)| tree::usage(files.empty_dir(name)) > *limit)?;
    let volumes = pod.wire.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let written =
        volumes.filter(|volume| volume.name == name).find_map(|it| it.empty_dir.as_ref()?.size_limit.as_ref());
    let written = written.map_or_else(|| limit.to_string(), |written| written.0.clone());
    Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {written:?}. "))
}

/// Returns the message for the first exceeded `ephemeral-storage` limit. A container uses its writable layer, logs and
/// termination messages; a pod uses what its containers use, its emptyDirs on disk and its managed files in `/etc`.
fn storage_exceeded(pod: &Pod, files: &PodFiles, used: &DiskUsages) -> Option<String> {
    let limit = pod.total.ephemeral_storage_limit?;
    let of_container = |(name, usage): &(String, DiskUsage)| {
        let parts = [usage.writable_layer, usage.logs, files.logs_usage(name), files.messages_usage(name)];
        (name.clone(), parts.into_iter().fold(0, u64::saturating_add))
    };
    let containers: Vec<_> = used.iter().map(of_container).collect();
    let volumes = on_disk(pod).map(|(name, _)| tree::usage(files.empty_dir(name)));
    let is_measured = |name: &String| used.iter().any(|(measured, _)| measured == name);
    let others = pod.all_containers().map(|it| &it.name).filter(|name| !is_measured(name));
    let rest = others.map(|name| files.messages_usage(name)).chain([files.etc_usage()]);
    if containers.iter().map(|(_, usage)| *usage).chain(volumes).chain(rest).fold(0, u64::saturating_add) > limit {
        let written = pod.whole.limits.as_ref().and_then(|limits| limits.get(STORAGE));
        let written = written.map_or_else(|| limit.to_string(), |written| written.0.clone());
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {written}. "));
    }
    containers.iter().find_map(|(name, usage)| {
        let container = pod.containers.iter().find(|container| container.name == *name)?;
        let limit = container.resources.ephemeral_storage_limit.filter(|limit| *limit > 0 && usage > limit)?;
        let wire = pod.wire.spec.iter().flat_map(|spec| &spec.containers).find(|wire| wire.name == *name);
        let written = wire.and_then(|wire| wire.resources.as_ref()?.limits.as_ref()?.get(STORAGE));
        let written = written.map_or_else(|| limit.to_string(), |written| written.0.clone());
        Some(format!("Container {name} exceeded its local ephemeral storage limit {written:?}. "))
    })
}
