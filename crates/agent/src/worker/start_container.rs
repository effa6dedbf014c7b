//! Creation and start of a container.

use std::{net::IpAddr, sync::Arc};

use stanchion_plan::{
    Run,
    history::{Failure, ImageState, Unstarted},
    image,
    reason::Reason,
};
use stanchion_pod::{Container, Pod, Revision};
use stanchion_runtime::{
    ContainerConfig, ContainerId, ContainerState, Error, ErrorKind, ImageDetails, Runtime, Version, signal,
};

use super::{Worker, failed::Failed, prepare, pulls, security};
use crate::{clock::instant, desired::DesiredPod, reference};

impl<R: Runtime> Worker<R> {
    /// Creates and starts a container. After a failure, records the time of the next try.
    pub(super) async fn run_container(&mut self, desired: Option<&DesiredPod>, run: &Run) {
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

    /// Starts a container that exists already.
    pub(super) async fn start_created(
        &mut self,
        desired: Option<&DesiredPod>,
        revision: &Revision,
        name: &str,
        id: ContainerId,
    ) {
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
