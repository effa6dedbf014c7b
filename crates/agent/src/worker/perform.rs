//! Performs the steps of a plan.

use stanchion_plan::{Action, history::Attempt, restart, time::after};
use stanchion_pod::PodUid;
use stanchion_runtime::{ContainerId, ContainerInfo, Error, ErrorKind, Runtime, SandboxId};

use super::{RETRY, RetryPause, Worker, recall};
use crate::{clock::instant, desired::DesiredPod, files};

impl<R: Runtime> Worker<R> {
    /// Performs one step. After a failure, records the time of the next try.
    pub(super) async fn perform(&mut self, action: Action, desired: Option<&DesiredPod>) {
        match action {
            Action::EnsureImages { .. } | Action::RunHook { .. } | Action::CleanUp => {}
            Action::CreateSandbox { revision, attempt, started_at } => {
                self.create_sandbox(desired, &revision, attempt, started_at).await;
            }
            Action::RunContainer(run) => self.run_container(desired, &run).await,
            Action::StartContainer { revision, container, id } => {
                self.start_created(desired, &revision, &container, id).await;
            }
            Action::StopContainers { backend, stops } => {
                self.recall.record_stop(&self.context, desired, self.presence.uids()).await;
                let stopped = self.stop_containers(&backend, stops, desired).await;
                self.finish_step("stop its containers", stopped);
            }
            Action::StopSandbox { backend, id } => {
                let stopped = self.stop_sandbox(&backend, id).await;
                self.finish_step("stop its sandbox", stopped);
            }
            Action::RemoveSandbox { backend, id } => {
                // Nobody waits for the removal of a pod that nobody wants.
                if desired.is_none() {
                    self.context.let_starts_pass(&backend).await;
                }
                let removed = self.remove_sandbox(&backend, id, desired).await;
                self.finish_step("remove its sandbox", removed);
            }
            Action::RemoveContainer { backend, id } => {
                let removed = self.remove_container(&backend, id).await;
                self.finish_step("remove a dead container", removed);
            }
        }
    }

    async fn stop_sandbox(&mut self, backend: &str, id: SandboxId) -> Result<(), Error> {
        self.context.runtime(backend)?.stop_sandbox(id.clone()).await?;
        self.history.set_stopped(id);
        Ok(())
    }

    async fn remove_container(&mut self, backend: &str, id: ContainerId) -> Result<(), Error> {
        if let Some(info) = self.container(&id) {
            self.count_attempt(&info);
        }
        self.context.runtime(backend)?.remove_container(id).await
    }

    /// Records the attempt number and back-off of a container that is about to be removed.
    fn count_attempt(&mut self, info: &ContainerInfo) {
        if self.history.attempt(&info.name).is_none_or(|latest| latest.attempt <= info.attempt) {
            let backoff = restart::next_backoff(Some(info), &self.history);
            self.history.set_attempt(&info.name, Attempt { attempt: info.attempt, backoff });
        }
    }

    /// Removes the pod's files. Returns whether that succeeded.
    pub(super) async fn clean_up(&mut self) -> bool {
        let mut removed = Ok(());
        for uid in self.presence.take_uids() {
            if let Err(error) = self.remove_files(&uid).await {
                self.presence.add(std::iter::once(uid));
                removed = Err(error);
            }
        }
        let is_done = removed.is_ok();
        self.finish_step("remove its files", removed);
        is_done
    }

    async fn remove_sandbox(
        &mut self,
        backend: &str,
        id: SandboxId,
        desired: Option<&DesiredPod>,
    ) -> Result<(), Error> {
        let (uid, observed) = (self.last_of(&id), self.observed());
        self.context.runtime(backend)?.remove_sandbox(id.clone()).await?;
        self.history.forget_sandbox(&id);
        let gone = observed.containers().filter(|it| it.sandbox == id);
        gone.for_each(|container| self.history.set_last_exit(container));
        match uid {
            Some(uid) if desired.is_some_and(|desired| desired.pod.uid != uid) => self.remove_files(&uid).await,
            _ => Ok(()),
        }
    }

    /// Returns the UID of a sandbox, if no other sandbox of the pod has it.
    fn last_of(&self, id: &SandboxId) -> Option<PodUid> {
        let observed = self.observed();
        let sandboxes = || observed.sandboxes();
        let uid = sandboxes().find(|sandbox| sandbox.id == *id).and_then(|sandbox| recall::uid(&sandbox.labels))?;
        let has_others = sandboxes().any(|other| other.id != *id && recall::uid(&other.labels).as_ref() == Some(&uid));
        (!has_others).then_some(uid)
    }

    async fn remove_files(&self, uid: &PodUid) -> Result<(), Error> {
        let files = self.context.files(uid.clone());
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, format!("removing the files of pod {} (uid {uid})", self.context.key))
                .caused_by(error)
        };
        files::remove(files).await.map_err(|error| failed(&error))
    }

    /// Records the result of a step. After a failure the worker waits before it repeats such a step.
    pub(super) fn finish_step(&mut self, tried: &str, done: Result<(), Error>) {
        match done {
            Ok(()) => self.pause = RetryPause::default(),
            Err(error) => {
                let message = format!("Failed to {tried}: {}", error.chain());
                self.context.warn("FailedSync", message);
                let delay = RETRY.after(self.pause.delay);
                self.pause = RetryPause { until: Some(after(instant(), delay)), delay };
            }
        }
    }
}
