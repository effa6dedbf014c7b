//! Creation of a pod's sandbox: the record, the volumes, then the sandbox itself.

use std::sync::Arc;

use stanchion_plan::{history::Failure, is_of_revision, reason::Reason, time::Stamp};
use stanchion_pod::{Pod, Revision};
use stanchion_runtime::{Error, ErrorKind, IdRange, Runtime, Version};

use super::{Worker, container, failed::Failed, prepare};
use crate::{blocking, clock::instant, desired::DesiredPod, files, id_ranges::IdRanges};

impl<R: Runtime> Worker<R> {
    /// Creates the sandbox of a revision. After a failure, records the time of the next try.
    pub(super) async fn create_sandbox(
        &mut self,
        desired: Option<&DesiredPod>,
        revision: &Revision,
        attempt: u32,
        started_at: Stamp,
    ) {
        let Some((pod, backend)) = self.revision(desired, revision) else { return };
        let runtime = match self.context.runtime(&backend) {
            Ok(runtime) => runtime,
            Err(error) => return self.finish_step("create its sandbox", Err(error)),
        };
        // The record comes first: an agent must never find a sandbox without a record.
        if let Some(desired) = desired.filter(|desired| desired.pod.revision == pod.revision) {
            self.record(desired, &backend).await;
        }
        // The volumes come before the sandbox, as with a kubelet: a pod that waits for its volumes has no address
        // (R-VOL-1).
        if let Err(Failed { reason, error, .. }) = prepare::prepare_volumes(&self.context, &pod, desired).await {
            let message = error.chain();
            self.context.warn("FailedMount", &*message);
            let (last, now) = (self.history.sandbox_failure(), instant());
            let failure = Failure::after(last, reason, message, error.kind(), None, now);
            return self.history.set_sandbox(Some(failure));
        }
        self.location.put_on(&backend);
        if self.observed().sandboxes().any(|it| is_of_revision(it, &pod)) {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.events().normal(&self.context.subject(), "SandboxChanged", message);
        }
        match self.request_sandbox(&backend, &*runtime, &pod, attempt, started_at).await {
            Ok(()) => self.history.set_sandbox(None),
            Err(error) => self.sandbox_failed(&error),
        }
        self.recall.begin(&pod, &backend);
    }

    /// Records the pod that is about to be put on a backend.
    async fn record(&mut self, desired: &DesiredPod, backend: &str) {
        let instead_of = self.location.instead_of(&desired.pod, backend);
        if let Err(error) = self.recall.record(&self.context, &desired.pod, backend, instead_of).await {
            let message = format!(
                "Cannot record the pod's manifest; until that succeeds, the agent may not recognize the pod after a restart: {}",
                error.chain()
            );
            self.context.warn("FailedToKeep", message);
        }
    }

    /// Calls `create_sandbox` of the backend, and gives up once the backend cannot be observed.
    async fn request_sandbox(
        &self,
        backend: &str,
        runtime: &R,
        pod: &Pod,
        attempt: u32,
        started_at: Stamp,
    ) -> Result<(), Error> {
        let _permit = self.context.permit(backend).await;
        let create = async {
            let hostname = files::host_name(pod).map_err(|why| Error::new(ErrorKind::Invalid, why))?;
            let users = self.users(runtime, pod).await?;
            let (machine, config) = (self.context.shared.machine(), &self.context.shared.config);
            let config = container::sandbox(pod, attempt, started_at, hostname, users, machine, config);
            runtime.create_sandbox(config).await.map(drop)
        };
        // *Cancel-safe:* a sandbox that was made after all is observed later.
        tokio::select! {
            created = create => created,
            () = self.context.until_away(backend) => Err(Error::new(ErrorKind::Unavailable, "the backend does not answer")),
        }
    }

    fn sandbox_failed(&mut self, error: &Error) {
        let message = format!("Failed to create pod sandbox: {}", error.chain());
        // An earlier try may have made the sandbox although its answer was lost. Then the next observation shows the
        // sandbox.
        if error.kind() != ErrorKind::AlreadyExists {
            self.context.warn("FailedCreatePodSandBox", &*message);
        }
        let (last, now) = (self.history.sandbox_failure(), instant());
        let failure = Failure::after(last, Reason::NoSandbox, message, error.kind(), error.retry_delay(), now);
        self.history.set_sandbox(Some(failure));
    }

    /// Returns the UID/GID range of a pod with `hostUsers: false`. Fails if the backend does not support user
    /// namespaces (R-SEC-14).
    async fn users(&self, runtime: &R, pod: &Pod) -> Result<Option<IdRange>, Error> {
        if !pod.security.own_users {
            return Ok(None);
        }
        let Version { runtime: name, runtime_version, capabilities } = runtime.version().await?;
        if !capabilities.user_namespaces {
            let message = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
            let way_out = "place the pod on a backend that can, such as containerd on Linux 5.19 or later, by runtimeClassName \
                           and [runtime_classes], or leave hostUsers out";
            let error = Error::new(ErrorKind::Unsupported, message);
            return Err(error.because(format!("{name} {runtime_version} here cannot; {way_out}")));
        }
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, "hostUsers: false").caused_by(error)
        };
        IdRanges::check(pod).map_err(|error| failed(&error))?;
        let (shared, uid) = (Arc::clone(&self.context.shared), pod.uid.clone());
        blocking(move || shared.id_ranges.of(&uid)).await.map(Some).map_err(|error| failed(&error))
    }
}
