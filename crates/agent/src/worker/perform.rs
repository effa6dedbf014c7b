//! The steps of a plan, performed.

use std::{net::IpAddr, sync::Arc};

use stanchion_pod::{Container, Pod, PodUid, Revision};
use stanchion_runtime::{
    ContainerConfig, ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, IdRange, ImageDetails, Runtime,
    SandboxId, Version, signal,
};

use super::{Hold, RETRY, Running, Worker, container, images, prepare::unusable, recall, security};
use crate::{
    clock::{Stamp, after, instant},
    desired::DesiredPod,
    events::Subject,
    files::{self, PodFiles},
    id_ranges::IdRanges,
    plan::{
        self, Action, Run,
        history::{Attempt, Failure, ImageState, Unstarted},
        image, restart,
    },
    reference,
};

/// A step that failed: its reason, as container statuses have it, and why.
pub(super) struct Failed {
    pub reason: &'static str,
    pub error: Error,
    /// The container that was made and could not be started.
    pub made: Option<ContainerId>,
}

impl Failed {
    /// The reason while volumes are not ready.
    pub const NOT_MOUNTED: &str = "ContainerCreating";

    /// A failure before there is a container.
    pub fn new(reason: &'static str, error: Error) -> Self {
        Self { reason, error, made: None }
    }
}

impl<R: Runtime> Worker<R> {
    /// Performs one step. What fails is noted with a time for the next try.
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
                self.note_stop(desired).await;
                let stopped = self.stop_containers(&backend, stops, desired).await;
                self.held("stop its containers", stopped);
            }
            Action::StopSandbox { backend, id } => {
                let stopped = match self.runtime(&backend) {
                    Ok(runtime) => runtime.stop_sandbox(id.clone()).await,
                    Err(error) => Err(error),
                };
                if stopped.is_ok() {
                    self.history.set_stopped(id);
                }
                self.held("stop its sandbox", stopped);
            }
            Action::RemoveSandbox { backend, id } => {
                let removed = self.remove_sandbox(&backend, id, desired).await;
                self.held("remove its sandbox", removed);
            }
            Action::RemoveContainer { backend, id } => {
                if let Some(info) = self.container(&id) {
                    self.remember(&info);
                }
                let removed = match self.runtime(&backend) {
                    Ok(runtime) => runtime.remove_container(id).await,
                    Err(error) => Err(error),
                };
                self.held("remove a dead container", removed);
            }
        }
    }

    /// Remembers the number of a container that is about to be forgotten.
    fn remember(&mut self, info: &ContainerInfo) {
        if self.history.attempt(&info.name).is_none_or(|latest| latest.attempt <= info.attempt) {
            let backoff = restart::next_backoff(Some(info), &self.history);
            self.history.set_attempt(&info.name, Attempt { attempt: info.attempt, backoff });
        }
    }

    /// Removes the pod's files. Whether that is done.
    pub(super) async fn clean_up(&mut self) -> bool {
        let mut removed = Ok(());
        for uid in std::mem::take(&mut self.uids) {
            if let Err(error) = self.remove_files(&uid).await {
                self.uids.insert(uid);
                removed = Err(error);
            }
        }
        let is_done = removed.is_ok();
        self.held("remove its files", removed);
        is_done
    }

    async fn create_sandbox(
        &mut self,
        desired: Option<&DesiredPod>,
        revision: &Revision,
        attempt: u32,
        started_at: Stamp,
    ) {
        let Some((pod, home)) = self.revision(desired, revision) else { return };
        let runtime = match self.runtime(&home) {
            Ok(runtime) => runtime,
            Err(error) => return self.held("make its sandbox", Err(error)),
        };
        // Before the sandbox is there: no agent may find one that it knows nothing of.
        if let Some(desired) = desired.filter(|desired| desired.pod.revision == pod.revision)
            && let Err(error) = self.keep_record(desired, &home).await
        {
            let message =
                format!("Cannot write down what runs; a restart of the agent may not know it: {}", error.chain());
            self.shared.events.warning(&Subject::pod(&self.key), "FailedToKeep", message);
        }
        // Before the sandbox, as a kubelet does: a pod without its volumes holds no address (R-VOL-1).
        if let Err(Failed { reason, error, .. }) = self.prepare_volumes(&pod, desired).await {
            let message = error.chain();
            self.shared.events.warning(&Subject::pod(&self.key), "FailedMount", &message);
            let (last, now) = (self.history.sandbox_failure(), instant());
            let failure = Failure::after(last, reason, message, error.kind(), None, now);
            return self.history.set_sandbox(Some(failure));
        }
        self.settle_on(&home);
        let remains = self.remains();
        if remains.iter().flat_map(|(_, remains)| &remains.sandboxes).any(|it| plan::is_current(it, &pod)) {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.shared.events.normal(&Subject::pod(&self.key), "SandboxChanged", message);
        }
        let permit = self.permit(&home).await;
        let create = async {
            let hostname = files::host_name(&pod).map_err(|why| Error::new(ErrorKind::Invalid, why))?;
            let users = self.users(&*runtime, &pod).await?;
            let config = container::sandbox(&pod, attempt, started_at, hostname, users, &self.shared.config);
            runtime.create_sandbox(config).await
        };
        let created = tokio::select! {
            created = create => created,
            () = self.until_away(&home) => Err(Error::new(ErrorKind::Unavailable, "the backend does not answer")),
        };
        drop(permit);
        match created {
            Ok(_) => self.history.set_sandbox(None),
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", error.chain());
                // Made by an earlier try whose answer did not arrive, the next look shows it; else it is asked for again.
                if error.kind() != ErrorKind::AlreadyExists {
                    self.shared.events.warning(&Subject::pod(&self.key), "FailedCreatePodSandBox", &message);
                }
                let (last, now) = (self.history.sandbox_failure(), instant());
                let failure =
                    Failure::after(last, "ContainerCreating", message, error.kind(), error.retry_delay(), now);
                self.history.set_sandbox(Some(failure));
            }
        }
        self.running = Some(Running { pod, backend: home, is_stopped: false });
    }

    /// Which users of the node are the pod's, if it has some of its own and the backend can give them to it (R-SEC-14).
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
        let (shared, uid) = (Arc::clone(&self.shared), pod.uid.clone());
        match tokio::task::spawn_blocking(move || shared.id_ranges.of(&uid)).await {
            Ok(range) => range.map(Some).map_err(|error| failed(&error)),
            Err(panic) => Err(failed(&panic)),
        }
    }

    async fn run_container(&mut self, desired: Option<&DesiredPod>, run: &Run) {
        let Some((pod, home)) = self.revision(desired, &run.revision) else { return };
        let Some(container) = pod.container(&run.container) else { return };
        let addresses = self
            .remains()
            .iter()
            .flat_map(|(_, remains)| &remains.sandboxes)
            .find_map(|sandbox| (sandbox.id == run.sandbox).then(|| sandbox.addresses.clone()));
        let subject = self.subject(Some(&pod), &container.name);
        if !self.history.take_pulled(&container.name) {
            self.shared.events.normal(&subject, "Pulled", images::present(&container.image));
        }
        match self.start(&home, &pod, container, run, addresses.unwrap_or_default(), desired).await {
            Ok(()) => {
                self.shared.events.normal(&subject, "Created", "Container created");
                self.shared.events.normal(&subject, "Started", "Container started");
                self.history.set_start(&container.name, None);
            }
            Err(Failed { reason, error, made: Some(id) }) => {
                self.shared.events.normal(&subject, "Created", "Container created");
                self.cannot_start(&pod, container, id, reason, &error);
            }
            Err(Failed { reason, error, made: None }) if error.kind() == ErrorKind::NotFound => {
                // An image went after it was seen.
                for need in image::needs(&pod, container) {
                    if let Some(home) = self.shared.home(&home) {
                        home.images.forget(&reference::full(need.image));
                    }
                    self.history.set_image(&pod.revision, need.of, ImageState::Unknown);
                }
                self.start_failed(&pod, container, reason, &error, ErrorKind::Unavailable);
            }
            Err(Failed { reason, error, .. }) => self.start_failed(&pod, container, reason, &error, error.kind()),
        }
    }

    async fn start_created(&mut self, desired: Option<&DesiredPod>, revision: &Revision, name: &str, id: ContainerId) {
        let Some((pod, home)) = self.revision(desired, revision) else { return };
        let Some(container) = pod.container(name) else { return };
        let started = match self.runtime(&home) {
            Ok(runtime) => {
                let _permit = self.permit(&home).await;
                self.launch(&home, &runtime, id).await
            }
            Err(error) => Err(Failed::new("RunContainerError", error)),
        };
        match started {
            Ok(()) => {
                let subject = self.subject(Some(&pod), &container.name);
                self.shared.events.normal(&subject, "Started", "Container started");
                self.history.set_start(&container.name, None);
            }
            Err(Failed { reason, error, made: Some(id) }) => self.cannot_start(&pod, container, id, reason, &error),
            Err(Failed { reason, error, .. }) => self.start_failed(&pod, container, reason, &error, error.kind()),
        }
    }

    /// Notes that a container was made and cannot be started: it counts as one that has ended, back-off and all.
    fn cannot_start(&mut self, pod: &Pod, container: &Container, id: ContainerId, reason: &'static str, error: &Error) {
        let message = error.chain();
        let subject = self.subject(Some(pod), &container.name);
        self.shared.events.warning(&subject, "Failed", format!("Error: {message}"));
        self.history.set_start(&container.name, Some(Failure::shown(reason, message.clone(), instant())));
        self.history.set_unstarted(id, Unstarted { message, at: self.shared.clock.now() });
    }

    /// Notes a failure to start; it is tried again as after a failure of `kind`.
    fn start_failed(&mut self, pod: &Pod, container: &Container, reason: &'static str, error: &Error, kind: ErrorKind) {
        let message = error.chain();
        match reason {
            Failed::NOT_MOUNTED => self.shared.events.warning(&Subject::pod(&self.key), "FailedMount", &message),
            _ => {
                let subject = self.subject(Some(pod), &container.name);
                self.shared.events.warning(&subject, "Failed", format!("Error: {message}"));
            }
        }
        let (last, now) = (self.history.start_failure(&container.name), instant());
        let failure = Failure::after(last, reason, message, kind, error.retry_delay(), now);
        self.history.set_start(&container.name, Some(failure));
    }

    async fn start(
        &self,
        home: &str,
        pod: &Arc<Pod>,
        container: &Container,
        run: &Run,
        addresses: Vec<IpAddr>,
        desired: Option<&DesiredPod>,
    ) -> Result<(), Failed> {
        let failed = |reason| move |error| Failed::new(reason, error);
        let runtime = self.runtime(home).map_err(failed("CreateContainerError"))?;
        let checked = security::check_non_root(&*runtime, pod, container).await;
        let image = checked.map_err(failed("CreateContainerConfigError"))?;
        let config = self.configure(pod, container, run, addresses, desired).await?;
        check_image_mounts(&*runtime, container, &config).await.map_err(failed("CreateContainerError"))?;
        let _permit = self.permit(home).await;
        let check = async {
            // Once for each pod: the image is hardly another one after a crash.
            if run.attempt == 0 {
                self.check_stop_signal(&*runtime, pod, container, image).await;
            }
        };
        let (created, ()) = tokio::join!(runtime.create_container(config), check);
        let id = created.map_err(|error| match error.kind() {
            // What was asked for cannot be had there (R-MNT-6).
            ErrorKind::Unsupported => Failed::new(unusable(), error),
            _ => Failed::new("CreateContainerError", error),
        })?;
        self.launch(home, &runtime, id).await
    }

    /// Says so if the image's stop signal is none. A container is stopped by `SIGTERM` then.
    async fn check_stop_signal(&self, runtime: &R, pod: &Arc<Pod>, container: &Container, known: Option<ImageDetails>) {
        let details = match known {
            Some(details) => details,
            None => match runtime.inspect_image(reference::full(&container.image)).await {
                Ok(details) => details,
                // An image that is gone has no container either.
                Err(_) => return,
            },
        };
        let Some(name) = details.stop_signal.filter(|name| signal::number(name).is_none()) else { return };
        let message = format!(
            "Image {:?} has the STOPSIGNAL {name:?}, which is no signal: the container is stopped by SIGTERM",
            container.image
        );
        self.shared.events.warning(&self.subject(Some(pod), &container.name), "UnknownStopSignal", message);
    }

    /// Starts a created container; one that cannot be started is left as it is, for it counts. It may run although the answer
    /// says otherwise, started by an agent that has died since: then nothing is killed.
    async fn launch(&self, home: &str, runtime: &R, id: ContainerId) -> Result<(), Failed> {
        let Err(error) = runtime.start_container(id.clone()).await else { return Ok(()) };
        let mut made = None;
        if !is_unknown(error.kind()) {
            self.look(home).await;
            match self.container(&id).map(|found| found.state) {
                Some(ContainerState::Running { .. }) => return Ok(()),
                Some(ContainerState::Created) => made = Some(id),
                _ => {}
            }
        }
        Err(Failed { reason: "RunContainerError", error, made })
    }

    async fn remove_sandbox(
        &mut self,
        backend: &str,
        id: SandboxId,
        desired: Option<&DesiredPod>,
    ) -> Result<(), Error> {
        let (uid, remains) = (self.last_of(&id), self.remains());
        self.runtime(backend)?.remove_sandbox(id.clone()).await?;
        self.history.forget_sandbox(&id);
        let gone = remains.iter().flat_map(|(_, remains)| &remains.containers).filter(|it| it.sandbox == id);
        gone.for_each(|container| self.history.set_end(container));
        match uid {
            Some(uid) if desired.is_some_and(|desired| desired.pod.uid != uid) => self.remove_files(&uid).await,
            _ => Ok(()),
        }
    }

    /// The UID whose only sandbox this is.
    fn last_of(&self, id: &SandboxId) -> Option<PodUid> {
        let remains = self.remains();
        let sandboxes = || remains.iter().flat_map(|(_, remains)| &remains.sandboxes);
        let uid = sandboxes().find(|sandbox| sandbox.id == *id).and_then(|sandbox| recall::uid(&sandbox.labels))?;
        let has_others = sandboxes().any(|other| other.id != *id && recall::uid(&other.labels).as_ref() == Some(&uid));
        (!has_others).then_some(uid)
    }

    async fn remove_files(&self, uid: &PodUid) -> Result<(), Error> {
        let files = self.files(uid.clone());
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, format!("removing the files of pod {} (uid {uid})", self.key)).caused_by(error)
        };
        match files::remove(files).await {
            Ok(removed) => removed.map_err(|error| failed(&error)),
            Err(panic) => Err(failed(&panic)),
        }
    }

    /// Notes whether a step succeeded; after a failure the worker leaves the pod alone for a while.
    fn held(&mut self, tried: &str, done: Result<(), Error>) {
        match done {
            Ok(()) => self.hold = Hold::default(),
            Err(error) => {
                let message = format!("Failed to {tried}: {}", error.chain());
                self.shared.events.warning(&Subject::pod(&self.key), "FailedSync", &message);
                let delay = (self.hold.delay * 2).clamp(RETRY.0, RETRY.1);
                self.hold = Hold { until: Some(after(instant(), delay)), delay };
            }
        }
    }

    pub(super) fn files(&self, uid: PodUid) -> PodFiles {
        PodFiles::new(&self.shared.config.state_dir, &self.shared.config.log_dir, &self.key, &uid)
    }

    /// A container of the pod, as it was at the latest look.
    pub(super) fn container(&self, id: &ContainerId) -> Option<ContainerInfo> {
        let remains = self.remains();
        let mut containers = remains.iter().flat_map(|(_, remains)| &remains.containers);
        containers.find(|container| container.id == *id).cloned()
    }
}

/// Checks that the backend can mount what the container has mounted of images (R-VOL-11).
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

/// Whether a call that failed like this may have done its work.
fn is_unknown(kind: ErrorKind) -> bool {
    use ErrorKind::{Cancelled, Crashed, Timeout, Unavailable};
    matches!(kind, Timeout | Cancelled | Crashed | Unavailable)
}
