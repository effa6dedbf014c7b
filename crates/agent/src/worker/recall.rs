//! Recorded manifests of pods that an earlier agent started: the present manifest may differ.

use std::sync::Arc;

use stanchion_plan::{history::Attempt, observed::Remains};
use stanchion_pod::{Pod, PodUid, Revision, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{Error, ErrorKind, Runtime, SandboxState, labels};

use super::{Running, Worker};
use crate::{
    blocking::blocking,
    desired::DesiredPod,
    files::{self, PodFiles, Record},
};

impl<R: Runtime> Worker<R> {
    /// Looks up the running pod's manifest, once, to keep the pod running while the newest manifest cannot take effect.
    pub(super) async fn recall(&mut self, desired: Option<&DesiredPod>, remains: &[(String, Arc<Remains>)]) {
        let Some(desired) = desired else {
            // A pod to remove is not started again while a new pod of the same name waits for its image.
            self.running = None;
            if !self.is_recalled
                && self.last.is_none()
                && let Some((_, uid, revision)) = standing(remains)
            {
                let recorded = self.recorded(uid).await.filter(|(pod, _)| pod.revision == revision);
                self.left = recorded.map(|(pod, _)| Arc::new(pod));
            }
            self.is_recalled = true;
            return;
        };
        if self.is_recalled || self.running.is_some() {
            return;
        }
        let Some((backend, uid, revision)) = standing(remains) else { return };
        self.is_recalled = true;
        if desired.pod.revision == revision {
            return;
        }
        let recorded = self.recorded(uid).await.filter(|(pod, _)| pod.revision == revision);
        self.running =
            recorded.map(|(pod, is_stopped)| Running { pod: Arc::new(pod), backend: backend.to_owned(), is_stopped });
        if self.running.is_none() {
            let message = "what runs was made from a manifest that is not known; it is left alone until the new one \
                           can take its place";
            tracing::warn!(%revision, message);
        }
    }

    /// Looks up, once for each revision, the attempt numbers of containers that the runtime may have forgotten
    /// (R-SYNC-13).
    pub(super) async fn recall_attempts(&mut self, desired: Option<&DesiredPod>) {
        let Some(pod) = desired.map(|desired| &desired.pod) else { return };
        if self.counted.as_ref() == Some(&pod.revision) {
            return;
        }
        self.counted = Some(pod.revision.clone());
        let (files, wanted) = (self.files(pod.uid.clone()), Arc::clone(pod));
        let latest = blocking(move || {
            let of = |name: &String| Some((name.clone(), files.latest(name).ok()??));
            wanted.all_containers().filter_map(|container| of(&container.name)).collect::<Vec<_>>()
        });
        self.history.forget_attempts();
        for (name, attempt) in latest.await {
            self.history.set_attempt(&name, Attempt { attempt, ..Attempt::default() });
        }
    }

    /// Returns whether the running revision differs from the one that an earlier agent kept, and was not stopped for
    /// it. It may be newer, because a full disk keeps nothing: it runs on until the manifest can be read (I3).
    pub(super) fn runs_newer(&self, desired: &DesiredPod, remains: &[(String, Arc<Remains>)]) -> bool {
        let is_stopped = self.running.as_ref().is_some_and(|running| running.is_stopped);
        let stands = |remains: &Remains| remains.sandboxes.iter().any(|it| it.state == SandboxState::Ready);
        desired.is_recalled
            && !is_stopped
            && remains.iter().any(|(_, remains)| stands(remains))
            && standing(remains).is_some_and(|(_, _, revision)| revision != desired.pod.revision)
    }

    /// Reads the recorded manifest of a pod, and whether the pod was being stopped.
    pub(super) async fn recorded(&self, uid: PodUid) -> Option<(Pod, bool)> {
        let (files, key, node) = (self.files(uid), self.key.clone(), self.shared.config.node_name.clone());
        let pod = move |record: Record| Some((record.pod(&key, &node)?, record.is_stopped));
        match blocking(move || files.record()).await {
            Ok(record) => record.and_then(pod),
            Err(error) => {
                tracing::warn!(%error, "cannot read the record of the running pod");
                None
            }
        }
    }

    /// Records the pod that is about to run.
    pub(super) async fn keep_record(&self, desired: &DesiredPod, backend: &str) -> Result<(), Error> {
        let record = Record {
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            boot: files::boot(),
            backend: backend.to_owned(),
            instead_of: self.placement.instead_of(&desired.pod.revision, backend).map(str::to_owned),
            revision: desired.pod.revision.as_str().to_owned(),
            is_stopped: false,
            origin: desired.pod.origin,
            pod: Some(Box::new(wire::Pod::clone(&desired.pod.wire))),
            manifest: String::new(),
        };
        self.write_down(&desired.pod.uid, move |files| files.keep_record(&record)).await
    }

    /// Records that the running pod is being stopped, for good or to be replaced: the next agent must not start it
    /// again.
    pub(super) async fn note_stop(&mut self, desired: Option<&DesiredPod>) {
        let stopped: Vec<_> = match (desired, &mut self.running) {
            (None, _) => self.uids.iter().cloned().collect(),
            (Some(desired), Some(running)) if desired.pod.revision != running.pod.revision && !running.is_stopped => {
                running.is_stopped = true;
                vec![running.pod.uid.clone()]
            }
            _ => Vec::new(),
        };
        for uid in stopped {
            if let Err(error) = self.write_down(&uid, |files| files.note_stop()).await {
                // An agent that started right now would start the old pod once more before replacing it.
                tracing::warn!(error = error.chain(), "the running pod's record is out of date");
            }
        }
    }

    async fn write_down(
        &self,
        uid: &PodUid,
        write: impl FnOnce(PodFiles) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let files = self.files(uid.clone());
        let written = blocking(move || write(files)).await;
        written.map_err(|error| Error::new(ErrorKind::Other, "writing the record of the running pod").caused_by(&error))
    }
}

/// Returns backend, UID and revision of the newest sandbox.
fn standing<'a>(remains: &'a [(String, Arc<Remains>)]) -> Option<(&'a str, PodUid, Revision)> {
    // On one backend the attempt numbers order the sandboxes, whatever the clock said at their creation.
    let of = |(backend, remains): &'a (String, Arc<Remains>)| Some((backend.as_str(), remains.sandboxes.last()?));
    let (backend, sandbox) = remains.iter().filter_map(of).max_by_key(|(_, sandbox)| sandbox.created_at)?;
    Some((backend, uid(&sandbox.labels)?, Revision::new(sandbox.labels.get(labels::REVISION)?)))
}

/// Returns the pod's UID from labels. Rejects a text that no agent can have written: the UID names a directory.
pub(crate) fn uid(labels: &std::collections::BTreeMap<String, String>) -> Option<PodUid> {
    let uid = labels.get(labels::POD_UID)?;
    let is_uid = (1..=63).contains(&uid.len()) && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_uid.then(|| PodUid::new(uid))
}
