//! Execution of the steps of a plan.

use std::{net::IpAddr, sync::Arc};

use stanchion_plan::{
    Action, Run,
    history::{Attempt, Failure, ImageState, Unstarted},
    image, is_of_revision,
    reason::Reason,
    restart,
    time::{Stamp, after},
};
use stanchion_pod::{Container, Pod, PodUid, Revision};
use stanchion_runtime::{
    ContainerConfig, ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, IdRange, ImageDetails, Runtime,
    SandboxId, Version, signal,
};

use super::{RETRY, RetryPause, Worker, container, failed::Failed, prepare, pulls, recall, security};
use crate::{blocking, clock::instant, desired::DesiredPod, files, id_ranges::IdRanges, reference};

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
                let stopped = match self.context.runtime(&backend) {
                    Ok(runtime) => runtime.stop_sandbox(id.clone()).await,
                    Err(error) => Err(error),
                };
                if stopped.is_ok() {
                    self.history.set_stopped(id);
                }
                self.finish_step("stop its sandbox", stopped);
            }
            Action::RemoveSandbox { backend, id } => {
                // Nobody waits for the rest of a pod that nobody wants.
                if desired.is_none() {
                    self.context.let_starts_pass(&backend).await;
                }
                let removed = self.remove_sandbox(&backend, id, desired).await;
                self.finish_step("remove its sandbox", removed);
            }
            Action::RemoveContainer { backend, id } => {
                if let Some(info) = self.container(&id) {
                    self.count_attempt(&info);
                }
                let removed = match self.context.runtime(&backend) {
                    Ok(runtime) => runtime.remove_container(id).await,
                    Err(error) => Err(error),
                };
                self.finish_step("remove a dead container", removed);
            }
        }
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

    async fn create_sandbox(
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
        if let Some(desired) = desired.filter(|desired| desired.pod.revision == pod.revision)
            && let instead_of = self.location.instead_of(&desired.pod, &backend)
            && let Err(error) = self.recall.record(&self.context, &desired.pod, &backend, instead_of).await
        {
            let message = format!(
                "Cannot record the pod's manifest; until that succeeds, the agent may not recognize the pod after a restart: {}",
                error.chain()
            );
            self.context.warn("FailedToKeep", message);
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
        let permit = self.context.permit(&backend).await;
        let create = async {
            let hostname = files::host_name(&pod).map_err(|why| Error::new(ErrorKind::Invalid, why))?;
            let users = self.users(&*runtime, &pod).await?;
            let config = container::sandbox(
                &pod,
                attempt,
                started_at,
                hostname,
                users,
                self.context.shared.machine(),
                &self.context.shared.config,
            );
            runtime.create_sandbox(config).await
        };
        let created = tokio::select! {
            created = create => created,
            () = self.context.until_away(&backend) => Err(Error::new(ErrorKind::Unavailable, "the backend does not answer")),
        };
        drop(permit);
        match created {
            Ok(_) => self.history.set_sandbox(None),
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", error.chain());
                // An earlier try may have made the sandbox although its answer was lost. Then the next observation
                // shows the sandbox.
                if error.kind() != ErrorKind::AlreadyExists {
                    self.context.warn("FailedCreatePodSandBox", &*message);
                }
                let (last, now) = (self.history.sandbox_failure(), instant());
                let failure = Failure::after(last, Reason::NoSandbox, message, error.kind(), error.retry_delay(), now);
                self.history.set_sandbox(Some(failure));
            }
        }
        self.recall.begin(&pod, &backend);
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

    async fn run_container(&mut self, desired: Option<&DesiredPod>, run: &Run) {
        let Some((pod, backend)) = self.revision(desired, &run.revision) else { return };
        let Some(container) = pod.container(&run.container) else { return };
        let observed = self.observed();
        let addresses = observed.sandboxes().find_map(|it| (it.id == run.sandbox).then(|| it.addresses.clone()));
        let subject = self.context.container(Some(&pod), &container.name);
        if !self.history.take_pulled(&pod.revision, &container.name) {
            self.context.events().normal(&subject, "Pulled", pulls::present(&container.image));
        }
        match self.start(&backend, &pod, container, run, addresses.unwrap_or_default(), desired).await {
            Ok(()) => {
                self.context.events().normal(&subject, "Created", "Container created");
                self.context.events().normal(&subject, "Started", "Container started");
                self.history.set_start(&container.name, None);
            }
            Err(Failed { reason, error, made: Some(id) }) => {
                self.context.events().normal(&subject, "Created", "Container created");
                self.cannot_start(&pod, container, id, reason, &error);
            }
            Err(Failed { reason, error, made: None }) if error.kind() == ErrorKind::NotFound => {
                // An image was removed after it had been found: it is pulled again.
                for need in image::needs(&pod, container) {
                    if let Some(slot) = self.context.shared.slot(&backend) {
                        slot.images.forget(&reference::full(need.image));
                    }
                    self.history.set_image(&pod.revision, need.of, ImageState::Unknown);
                }
                self.start_failed(&pod, container, reason, &error, ErrorKind::Unavailable);
            }
            Err(Failed { reason, error, .. }) => self.start_failed(&pod, container, reason, &error, error.kind()),
        }
    }

    async fn start_created(&mut self, desired: Option<&DesiredPod>, revision: &Revision, name: &str, id: ContainerId) {
        let Some((pod, backend)) = self.revision(desired, revision) else { return };
        let Some(container) = pod.container(name) else { return };
        let started = match self.context.runtime(&backend) {
            Ok(runtime) => {
                let _permit = self.context.permit(&backend).await;
                self.launch(&backend, &runtime, id).await
            }
            Err(error) => Err(Failed::new(Reason::RunContainerError, error)),
        };
        match started {
            Ok(()) => {
                let subject = self.context.container(Some(&pod), &container.name);
                self.context.events().normal(&subject, "Started", "Container started");
                self.history.set_start(&container.name, None);
            }
            Err(Failed { reason, error, made: Some(id) }) => self.cannot_start(&pod, container, id, reason, &error),
            Err(Failed { reason, error, .. }) => self.start_failed(&pod, container, reason, &error, error.kind()),
        }
    }

    /// Records that a created container cannot be started. It counts as exited, with back-off.
    fn cannot_start(&mut self, pod: &Pod, container: &Container, id: ContainerId, reason: Reason, error: &Error) {
        let message = error.chain();
        let subject = self.context.container(Some(pod), &container.name);
        self.context.events().warning(&subject, "Failed", format!("Error: {message}"));
        self.history.set_start(&container.name, Some(Failure::without_wait(reason, message.clone(), instant())));
        self.history.set_unstarted(id, Unstarted { message, at: self.context.shared.clock.now() });
    }

    /// Records a failed start. The wait before the next try is that for an error of `kind`.
    fn start_failed(&mut self, pod: &Pod, container: &Container, reason: Reason, error: &Error, kind: ErrorKind) {
        let message = error.chain();
        match reason {
            Reason::NotMounted => self.context.warn("FailedMount", &*message),
            _ => {
                let subject = self.context.container(Some(pod), &container.name);
                self.context.events().warning(&subject, "Failed", format!("Error: {message}"));
            }
        }
        let (last, now) = (self.history.start_failure(&container.name), instant());
        let failure = Failure::after(last, reason, message, kind, error.retry_delay(), now);
        self.history.set_start(&container.name, Some(failure));
    }

    async fn start(
        &self,
        backend: &str,
        pod: &Arc<Pod>,
        container: &Container,
        run: &Run,
        addresses: Vec<IpAddr>,
        desired: Option<&DesiredPod>,
    ) -> Result<(), Failed> {
        let failed = |reason| move |error| Failed::new(reason, error);
        let runtime = self.context.runtime(backend).map_err(failed(Reason::CreateContainerError))?;
        let checked = security::check_non_root(&*runtime, pod, container).await;
        let image = checked.map_err(failed(Reason::CreateContainerConfigError))?;
        let config = prepare::configure(&self.context, pod, container, run, addresses, desired).await?;
        check_image_mounts(&*runtime, container, &config).await.map_err(failed(Reason::CreateContainerError))?;
        let _permit = self.context.permit(backend).await;
        let check = async {
            // Only the first instance is checked: the image seldom changes with a restart.
            if run.attempt == 0 {
                self.check_stop_signal(&*runtime, pod, container, image).await;
            }
        };
        let (created, ()) = tokio::join!(runtime.create_container(config), check);
        let id = created.map_err(|error| match error.kind() {
            // The backend lacks a feature that the manifest needs (R-MNT-6).
            ErrorKind::Unsupported => Failed::new(Reason::CreateContainerConfigError, error),
            _ => Failed::new(Reason::CreateContainerError, error),
        })?;
        self.launch(backend, &runtime, id).await
    }

    /// Emits a warning if the image's `STOPSIGNAL` is not a signal. Runtimes then stop the container by `SIGTERM`.
    async fn check_stop_signal(&self, runtime: &R, pod: &Arc<Pod>, container: &Container, known: Option<ImageDetails>) {
        let details = match known {
            Some(details) => details,
            None => match runtime.inspect_image(reference::full(&container.image)).await {
                Ok(details) => details,
                // Without its image the container cannot be created either.
                Err(_) => return,
            },
        };
        let Some(name) = details.stop_signal.filter(|name| signal::number(name).is_none()) else { return };
        let message = format!(
            "Image {:?} has the STOPSIGNAL {name:?}, which is no signal: the container is stopped by SIGTERM",
            container.image
        );
        self.context.events().warning(
            &self.context.container(Some(pod), &container.name),
            "UnknownStopSignal",
            message,
        );
    }

    /// Starts a created container. A container that cannot be started is kept, because it counts as an instance. If it
    /// runs although the call failed, an agent that has died since has started it.
    async fn launch(&self, backend: &str, runtime: &R, id: ContainerId) -> Result<(), Failed> {
        let Err(error) = runtime.start_container(id.clone()).await else { return Ok(()) };
        let mut made = None;
        if !is_unknown(error.kind()) {
            self.context.observe(backend).await;
            match self.container(&id).map(|found| found.state) {
                Some(ContainerState::Running { .. }) => return Ok(()),
                Some(ContainerState::Created) => made = Some(id),
                _ => {}
            }
        }
        Err(Failed { reason: Reason::RunContainerError, error, made })
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
    fn finish_step(&mut self, tried: &str, done: Result<(), Error>) {
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

/// Checks that the backend supports image volumes if the container mounts one (R-VOL-11).
async fn check_image_mounts<R: Runtime>(
    runtime: &R,
    container: &Container,
    config: &ContainerConfig,
) -> Result<(), Error> {
    let Some(image) = config.mounts.iter().find_map(|mount| mount.image.as_ref()) else { return Ok(()) };
    let Version { runtime: name, runtime_version, capabilities } = runtime.version().await?;
    if capabilities.image_mounts {
        return Ok(());
    }
    let message =
        format!("container {}: {name} {runtime_version} cannot mount image {}", container.name, image.reference);
    let way_out = "place the pod on a backend that can, such as containerd, by runtimeClassName and [runtime_classes], or \
                   have an init container of that image copy its files to an emptyDir";
    Err(Error::new(ErrorKind::Unsupported, message).because(way_out))
}

/// Returns whether a call that failed with this kind of error may have taken effect.
fn is_unknown(kind: ErrorKind) -> bool {
    use ErrorKind::{Cancelled, Crashed, Timeout, Unavailable};
    matches!(kind, Timeout | Cancelled | Crashed | Unavailable)
}
