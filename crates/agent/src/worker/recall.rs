//! The running revision of a pod, from records on the node: the manifest may have changed since an earlier agent
//! started the pod.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan::{
    self as plan,
    history::{Attempt, History},
    is_of_revision,
    observed::Observed,
    time::{Backoff, after},
};
use stanchion_pod::{Pod, PodUid, Revision, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{ContainerInfo, Error, ErrorKind, Runtime, SandboxState, labels};

use super::context::{Context, Snapshot};
use crate::{
    blocking,
    clock::instant,
    desired::DesiredPod,
    files::{self, PodFiles, Record},
};

/// Waits before a record that could not be written is tried again.
const WRITE_AGAIN: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// Manifests of a pod besides the wanted one.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// The running revision, if its manifest is known.
    running: Option<RunningPod>,
    /// Recorded manifest of a pod that exists and that no source wants.
    left: Option<Arc<Pod>>,
    /// `true` once the record of an earlier agent has been looked for.
    is_done: bool,
    /// The revision whose attempt numbers have been read.
    counted: Option<Revision>,
    /// The record of the running revision, while it cannot be written.
    unwritten: Option<Unwritten>,
}

/// A record that could not be written, and the next try.
#[derive(Debug)]
struct Unwritten {
    uid: PodUid,
    record: Arc<Record>,
    wait: Duration,
    next_try: Instant,
}

/// A revision and the backend that it was put on.
#[derive(Debug)]
struct RunningPod {
    pod: Arc<Pod>,
    backend: String,
    /// `true` once it was stopped so that another revision can replace it.
    is_stopped: bool,
}

impl Recall {
    /// Reads the running pod's manifest once, so that the pod keeps running while the newest manifest cannot take
    /// effect. `last` is the last wanted state.
    pub async fn sync<R: Runtime>(&mut self, context: &Context<R>, snapshot: &Snapshot, last: Option<&DesiredPod>) {
        let Snapshot { desired, observed } = snapshot;
        let Some(desired) = desired else {
            // A pod that is removed must not start again while a new pod of the same name waits for its image.
            self.running = None;
            if !self.is_done
                && last.is_none()
                && let Some((_, uid, revision)) = newest(observed)
            {
                let recorded = recorded(context, uid).await.filter(|(pod, _)| pod.revision == revision);
                self.left = recorded.map(|(pod, _)| Arc::new(pod));
            }
            self.is_done = true;
            return;
        };
        if self.is_done || self.running.is_some() {
            return;
        }
        let Some((backend, uid, revision)) = newest(observed) else { return };
        self.is_done = true;
        if desired.pod.revision == revision {
            return;
        }
        let recorded = recorded(context, uid).await.filter(|(pod, _)| pod.revision == revision);
        self.running = recorded.map(|(pod, is_stopped)| RunningPod {
            pod: Arc::new(pod),
            backend: backend.to_owned(),
            is_stopped,
        });
        if self.running.is_none() {
            let message = "what runs was made from a manifest that is not known; it is left alone until the new one \
                           can take its place";
            tracing::warn!(%revision, message);
        }
    }

    /// Reads, once for each revision, the attempt numbers of containers that the runtime may have forgotten
    /// (R-SYNC-13).
    pub async fn count<R: Runtime>(
        &mut self,
        context: &Context<R>,
        desired: Option<&DesiredPod>,
        history: &mut History,
    ) {
        let Some(pod) = desired.map(|desired| &desired.pod) else { return };
        if self.counted.as_ref() == Some(&pod.revision) {
            return;
        }
        self.counted = Some(pod.revision.clone());
        let (files, wanted) = (context.files(pod.uid.clone()), Arc::clone(pod));
        let latest = blocking(move || {
            let of = |name: &String| Some((name.clone(), files.latest(name).ok()??));
            wanted.all_containers().filter_map(|container| of(&container.name)).collect::<Vec<_>>()
        });
        history.forget_attempts();
        for (name, attempt) in latest.await {
            history.set_attempt(&name, Attempt { attempt, ..Attempt::default() });
        }
    }

    /// Takes the wanted revision for the running one once it has a sandbox.
    pub fn adopt_sandbox(&mut self, desired: &DesiredPod, observed: &Observed) {
        let has_sandbox = |(_, there): &(&str, &plan::observed::ObservedPod)| {
            there.sandboxes.iter().any(|sandbox| is_of_revision(sandbox, &desired.pod))
        };
        if let Some((backend, _)) = observed.backends().find(has_sandbox) {
            self.begin(&desired.pod, backend);
        }
    }

    /// Sets the running revision and its backend.
    pub fn begin(&mut self, pod: &Arc<Pod>, backend: &str) {
        self.running = Some(RunningPod { pod: Arc::clone(pod), backend: backend.to_owned(), is_stopped: false });
    }

    /// Writes the record of a pod that is about to run on a backend. `instead_of` is the pod's own backend if this one
    /// is its fallback. [`Self::write_again`] repeats a failed write.
    pub async fn record<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: &Pod,
        backend: &str,
        instead_of: Option<&str>,
    ) -> Result<(), Error> {
        let record = Arc::new(Record {
            namespace: context.key.namespace.clone(),
            name: context.key.name.clone(),
            boot: files::boot(),
            backend: backend.to_owned(),
            instead_of: instead_of.map(str::to_owned),
            revision: pod.revision.as_str().to_owned(),
            is_stopped: false,
            origin: pod.origin,
            pod: Some(Box::new(wire::Pod::clone(&pod.wire))),
            manifest: String::new(),
        });
        self.unwritten = None;
        let kept = Arc::clone(&record);
        let written = write_down(context, &pod.uid, move |files| files.keep_record(&kept)).await;
        if written.is_err() {
            let wait = WRITE_AGAIN.after(Duration::ZERO);
            self.unwritten = Some(Unwritten { uid: pod.uid.clone(), record, wait, next_try: after(instant(), wait) });
        }
        written
    }

    /// Repeats a failed write of the running revision's record, if that is due. Returns the time of the next try.
    pub async fn write_again<R: Runtime>(&mut self, context: &Context<R>) -> Option<Instant> {
        let runs = |it: &RunningPod, record: &Record| {
            it.pod.revision.as_str() == record.revision && it.backend == record.backend && !it.is_stopped
        };
        let unwritten =
            self.unwritten.take().filter(|it| self.running.as_ref().is_some_and(|run| runs(run, &it.record)))?;
        let unwritten = match unwritten {
            Unwritten { uid, record, wait, next_try } if next_try <= instant() => {
                let kept = Arc::clone(&record);
                if write_down(context, &uid, move |files| files.keep_record(&kept)).await.is_ok() {
                    return None;
                }
                let wait = WRITE_AGAIN.after(wait);
                Unwritten { uid, record, wait, next_try: after(instant(), wait) }
            }
            early => early,
        };
        Some(self.unwritten.insert(unwritten).next_try)
    }

    /// Forgets the revision that ran on a backend that has been given up.
    pub fn forget_on(&mut self, backend: &str) {
        self.running = self.running.take().filter(|running| running.backend != backend);
    }

    /// Returns the running revision.
    pub fn running(&self) -> Option<&Arc<Pod>> {
        self.running.as_ref().map(|running| &running.pod)
    }

    /// Returns the running revision in the form that the plan takes.
    pub fn as_planned(&self) -> Option<plan::RunningRevision<'_>> {
        let RunningPod { pod, backend, is_stopped } = self.running.as_ref()?;
        Some(plan::RunningRevision { pod, backend, is_stopped: *is_stopped })
    }

    /// Returns the manifest and the backend of a revision, if it is the running one.
    pub fn backend_of(&self, revision: &Revision) -> Option<(Arc<Pod>, String)> {
        let running = self.running.as_ref().filter(|running| running.pod.revision == *revision)?;
        Some((Arc::clone(&running.pod), running.backend.clone()))
    }

    /// Returns whether a revision runs that may be newer than the wanted one, which an earlier agent kept: a full disk
    /// may have kept the newer manifest out. It keeps running until the manifest can be read (I3).
    pub fn runs_newer(&self, desired: &DesiredPod, observed: &Observed) -> bool {
        let is_stopped = self.running.as_ref().is_some_and(|running| running.is_stopped);
        desired.is_recalled
            && !is_stopped
            && observed.sandboxes().any(|sandbox| sandbox.state == SandboxState::Ready)
            && newest(observed).is_some_and(|(_, _, revision)| revision != desired.pod.revision)
    }

    /// Returns the revision that has a sandbox, the wanted one first.
    pub fn pod_with_sandbox(&self, desired: &DesiredPod, observed: &Observed) -> Option<Arc<Pod>> {
        std::iter::once(&desired.pod).chain(self.running()).find(|pod| has_sandbox(pod, observed)).cloned()
    }

    /// Returns the revision to show: one that has a sandbox, else the wanted one, else a recorded one. `last` is the
    /// last wanted state.
    pub fn pod_to_show(&self, snapshot: &Snapshot, last: Option<&DesiredPod>) -> Option<Arc<Pod>> {
        let has_sandbox = |pod: &&Arc<Pod>| has_sandbox(pod, &snapshot.observed);
        let wanted = snapshot.desired.as_ref().or(last).map(|desired| &desired.pod);
        wanted.filter(has_sandbox).or(self.running().filter(has_sandbox)).or(wanted).or(self.left.as_ref()).cloned()
    }

    /// Returns the manifest of a container: one of `wanted`, the running one, or a recorded one (R-RST-2).
    pub async fn pod_of<R: Runtime>(
        &self,
        context: &Context<R>,
        info: &ContainerInfo,
        wanted: [Option<&DesiredPod>; 2],
    ) -> Option<Arc<Pod>> {
        let revision = info.labels.get(labels::REVISION)?;
        let mut known = wanted.into_iter().flatten().map(|desired| &desired.pod).chain(self.running());
        if let Some(pod) = known.find(|pod| pod.revision.as_str() == revision) {
            return Some(Arc::clone(pod));
        }
        let (pod, _) = recorded(context, uid(&info.labels)?).await?;
        (pod.revision.as_str() == revision).then(|| Arc::new(pod))
    }

    /// Records that the running pod is being stopped, for good or for its replacement: the next agent must not start it
    /// again. `uids` are those that the pod has or had.
    pub async fn record_stop<R: Runtime>(
        &mut self,
        context: &Context<R>,
        desired: Option<&DesiredPod>,
        uids: &BTreeSet<PodUid>,
    ) {
        let stopped: Vec<_> = match (desired, &mut self.running) {
            (None, _) => uids.iter().cloned().collect(),
            (Some(desired), Some(running)) if desired.pod.revision != running.pod.revision && !running.is_stopped => {
                running.is_stopped = true;
                vec![running.pod.uid.clone()]
            }
            _ => Vec::new(),
        };
        for uid in stopped {
            if let Err(error) = write_down(context, &uid, |files| files.record_stop()).await {
                // An agent that starts now would start the old pod again before replacing it.
                tracing::warn!(error = error.chain(), "the running pod's record is out of date");
            }
        }
    }
}

/// Reads the recorded manifest of a pod, and whether the pod was being stopped.
async fn recorded<R: Runtime>(context: &Context<R>, uid: PodUid) -> Option<(Pod, bool)> {
    let (files, key, node) = (context.files(uid), context.key.clone(), context.shared.config.node_name.clone());
    let pod = move |record: Record| Some((record.pod(&key, &node)?, record.is_stopped));
    match blocking(move || files.record()).await {
        Ok(record) => record.and_then(pod),
        Err(error) => {
            tracing::warn!(%error, "cannot read the record of the running pod");
            None
        }
    }
}

async fn write_down<R: Runtime>(
    context: &Context<R>,
    uid: &PodUid,
    write: impl FnOnce(PodFiles) -> std::io::Result<()> + Send + 'static,
) -> Result<(), Error> {
    let files = context.files(uid.clone());
    let written = blocking(move || write(files)).await;
    written.map_err(|error| Error::new(ErrorKind::Other, "writing the record of the running pod").caused_by(&error))
}

/// Returns backend, UID and revision of the newest sandbox.
fn newest(observed: &Observed) -> Option<(&str, PodUid, Revision)> {
    // On one backend the attempt numbers order the sandboxes, even if somebody has set the clock.
    let latest = observed.backends().filter_map(|(backend, there)| Some((backend, there.sandboxes.last()?)));
    let (backend, sandbox) = latest.max_by_key(|(_, sandbox)| sandbox.created_at)?;
    Some((backend, uid(&sandbox.labels)?, Revision::new(sandbox.labels.get(labels::REVISION)?)))
}

/// Returns whether this revision has a sandbox.
fn has_sandbox(pod: &Pod, observed: &Observed) -> bool {
    observed.sandboxes().any(|sandbox| is_of_revision(sandbox, pod))
}

/// Returns the pod's UID from labels. It names a directory, so a text that no agent can have written is rejected.
pub(crate) fn uid(labels: &std::collections::BTreeMap<String, String>) -> Option<PodUid> {
    let uid = labels.get(labels::POD_UID)?;
    let is_uid = (1..=63).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_uid.then(|| PodUid::new(uid))
}
