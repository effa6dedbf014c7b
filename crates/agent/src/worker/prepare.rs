//! Preparation of a pod's volumes, and of a container's managed files and environment.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan::{Run, reason::Reason, time::after};
use stanchion_pod::{Container, Objects, Pod, Volume};
use stanchion_runtime::{ContainerConfig, Error, ErrorKind, Runtime};

use super::{
    container::{self, Prepared},
    context::Context,
    failed::Failed,
    mounts,
    pod_inputs::PodInputs,
};
use crate::{
    blocking,
    clock::instant,
    desired::DesiredPod,
    env::{EnvError, Environment},
    files,
};

/// Wait before the next try to refresh volumes.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

/// The pod and the objects of the last refresh.
#[derive(Debug)]
struct Refreshed {
    pod: Arc<Pod>,
    objects: Arc<Objects>,
    /// Time of the next try, if the refresh failed and a retry can help.
    again: Option<Instant>,
}

/// Prepares the pod's volumes (R-VOL-1). Keeps existing ones, unless the pod was evicted.
pub(super) async fn prepare_volumes<R: Runtime>(
    context: &Context<R>,
    pod: &Arc<Pod>,
    desired: Option<&DesiredPod>,
) -> Result<(), Failed> {
    let pod_inputs = PodInputs::of(context, pod, desired);
    blocking(move || {
        pod_inputs.files.end_eviction().map_err(|error| {
            let message = "emptying the volumes of an evicted pod";
            Failed::new(Reason::NotMounted, Error::new(ErrorKind::Unavailable, message).caused_by(&error))
        })?;
        pod_inputs.measured().volumes(true).map(drop)
    })
    .await
}

/// Prepares the files, volumes and environment of a container, and returns its configuration.
pub(super) async fn configure<R: Runtime>(
    context: &Context<R>,
    pod: &Arc<Pod>,
    container: &Container,
    run: &Run,
    addresses: Vec<IpAddr>,
    desired: Option<&DesiredPod>,
) -> Result<ContainerConfig, Failed> {
    let pod_inputs = PodInputs::of(context, pod, desired);
    let log_path = pod_inputs.files.log(&container.name, run.attempt);
    let (own, attempt) = (container.clone(), run.attempt);
    let prepared = blocking(move || prepare(&pod_inputs.measured(), &own, attempt, &addresses)).await?;
    for warning in &prepared.warnings {
        context.warn("DNSConfigForming", warning);
    }
    let machine = context.shared.machine();
    let inputs = container::ContainerInputs { run, prepared, log_path, machine, config: &context.shared.config };
    Ok(container::container(pod, container, inputs))
}

/// Volumes of the running pod that hold ConfigMaps, Secrets or the pod's own fields.
#[derive(Debug, Default)]
pub(super) struct Projections {
    last: Option<Refreshed>,
}

impl Projections {
    /// Refreshes these volumes when their objects or the pod change (R-VOL-8). `pod` is the revision that has a
    /// sandbox. Returns the time of the next try after a failure.
    pub async fn sync<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: Option<&Arc<Pod>>,
        desired: Option<&DesiredPod>,
    ) -> Option<Instant> {
        let desired = desired?;
        let is_projected = |volume: &Volume| matches!(volume, Volume::Projected(_));
        let pod = pod.filter(|pod| pod.volumes.values().any(is_projected))?;
        let now = instant();
        let is_refreshed =
            |last: &Refreshed| Arc::ptr_eq(&last.pod, pod) && Arc::ptr_eq(&last.objects, &desired.objects);
        if let Some(last) = self.last.as_ref().filter(|last| is_refreshed(last))
            && last.again.is_none_or(|again| again > now)
        {
            return last.again;
        }
        let pod_inputs = PodInputs::of(context, pod, Some(desired));
        let failed = blocking(move || pod_inputs.measured().refresh()).await;
        for Failed { error, .. } in &failed {
            context.warn("FailedMount", error.chain());
        }
        // A missing object needs no retry: `objects` changes when it appears.
        let is_passing = failed.iter().any(|failed| failed.error.kind() == ErrorKind::Unavailable);
        let again = is_passing.then(|| after(now, REFRESH_AGAIN));
        self.last = Some(Refreshed { pod: Arc::clone(pod), objects: Arc::clone(&desired.objects), again });
        again
    }
}

/// Prepares the files, volumes and environment of a container.
fn prepare(
    pod_inputs: &PodInputs,
    container: &Container,
    attempt: u32,
    addresses: &[IpAddr],
) -> Result<Prepared, Failed> {
    let failed = |tried: String, error: &(dyn std::error::Error + 'static)| {
        Failed::new(Reason::CreateContainerConfigError, Error::new(ErrorKind::Other, tried).caused_by(error))
    };
    let of = |tried: &str| format!("{tried} of pod {}", pod_inputs.pod.key);
    pod_inputs.files.create(&container.name).map_err(|error| failed(of("making the directories"), &error))?;
    let volumes = pod_inputs.volumes(false)?;
    let etc = files::write_etc(&pod_inputs.files.etc(), &pod_inputs.pod, addresses, pod_inputs.resolv_conf.as_deref());
    let etc = etc.map_err(|error| failed(of("writing the files in /etc"), &error))?;
    let message = pod_inputs.files.make_message(&container.name, attempt);
    let message = message.map_err(|error| failed(of("making the file for the termination message"), &error))?;
    let volume_path = |name: &str| volumes.get(name).map(PathBuf::as_path);
    let failed_env = |error: EnvError| {
        let failed = Error::new(ErrorKind::Other, error.to_string());
        let failed =
            std::error::Error::source(&error).into_iter().fold(failed, |failed, cause| failed.caused_by(cause));
        Failed::new(Reason::CreateContainerConfigError, failed)
    };
    let mut environment =
        Environment::of(container, &pod_inputs.env_inputs(addresses, &volume_path)).map_err(failed_env)?;
    let managed = etc.files.into_iter().map(|(source, path)| (source, path.to_owned()));
    let managed: Vec<_> = managed.chain(container.message_path.clone().map(|path| (message, path))).collect();
    pod_inputs
        .label(container, managed.iter().map(|(source, _)| source), &volumes)
        .map_err(|error| failed(of("labelling the volumes"), &error))?;
    Ok(Prepared {
        mounts: mounts::mounts(pod_inputs, container, &volumes, managed, &environment)?,
        warnings: etc.warnings,
        command: environment.expanded(container.command.as_deref()).map_err(failed_env)?,
        args: environment.expanded(container.args.as_deref()).map_err(failed_env)?,
        env: environment.into_variables(),
    })
}
