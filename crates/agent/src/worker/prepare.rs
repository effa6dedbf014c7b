//! Preparation of a container on the node: volumes, managed files, environment.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan::{Run, reason::Reason, time::after};
use stanchion_pod::{Capacity, Container, Objects, Pod, Volume};
use stanchion_runtime::{ContainerConfig, EnvVar, Error, ErrorKind, Mount, Runtime};

use super::{context::Context, container, failed::Failed, mounts, security};
use crate::{
    blocking::blocking,
    clock::instant,
    desired::DesiredPod,
    env::{EnvError, Environment, Inputs},
    files::{self, PodFiles, Site, VolumeError},
    shared::Shared,
};

/// Parts of a container's configuration that come from the prepared volumes, files and environment.
pub(super) struct Prepared {
    pub mounts: Vec<Mount>,
    /// Warnings about DNS settings that had to be left out.
    pub warnings: Vec<String>,
    pub env: Vec<EnvVar>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
}

/// Wait before volumes that could not be refreshed are tried again.
const FOLLOW_AGAIN: Duration = Duration::from_secs(10);

/// The pod and objects that its volumes were last refreshed for.
#[derive(Debug)]
struct Followed {
    pod: Arc<Pod>,
    objects: Arc<Objects>,
    /// Time of the next try, if the refresh failed and a retry can help.
    again: Option<Instant>,
}

/// Inputs of a pod's files and environments; owned, for the blocking pool.
pub(super) struct Material {
    pub pod: Arc<Pod>,
    objects: Arc<Objects>,
    pub files: PodFiles,
    capacity: Capacity,
    /// Directory on the disk whose size is the node's ephemeral storage.
    disk: PathBuf,
    node_addresses: Vec<IpAddr>,
    resolv_conf: Option<PathBuf>,
    /// `true` if the node has SELinux.
    has_se_linux: bool,
}

/// Prepares the pod's volumes (R-VOL-1). Keeps existing ones, unless the pod was evicted.
pub(super) async fn prepare_volumes<R: Runtime>(
    context: &Context<R>,
    pod: &Arc<Pod>,
    desired: Option<&DesiredPod>,
) -> Result<(), Failed> {
    let material = Material::of(context, pod, desired);
    blocking(move || {
        material.files.end_eviction().map_err(|error| {
            let message = "emptying the volumes of an evicted pod";
            Failed::new(Reason::NotMounted, Error::new(ErrorKind::Unavailable, message).caused_by(&error))
        })?;
        material.measured().volumes(true).map(drop)
    })
    .await
}

/// Prepares everything that a container's configuration names, and returns the configuration.
pub(super) async fn configure<R: Runtime>(
    context: &Context<R>,
    pod: &Arc<Pod>,
    container: &Container,
    run: &Run,
    addresses: Vec<IpAddr>,
    desired: Option<&DesiredPod>,
) -> Result<ContainerConfig, Failed> {
    let material = Material::of(context, pod, desired);
    let log_path = material.files.log(&container.name, run.attempt);
    let (own, attempt) = (container.clone(), run.attempt);
    let prepared = blocking(move || material.measured().prepare(&own, attempt, &addresses)).await?;
    for warning in &prepared.warnings {
        context.warn("DNSConfigForming", warning);
    }
    let machine = context.shared.machine();
    let start = container::Start { run, prepared, log_path, machine, config: &context.shared.config };
    Ok(container::container(pod, container, start))
}

/// The volumes of the running pod that are made of ConfigMaps, Secrets and the pod's own labels.
#[derive(Debug, Default)]
pub(super) struct Projections {
    last: Option<Followed>,
}

impl Projections {
    /// Refreshes the volumes of the pod that has a sandbox when what they are made of changes (R-VOL-8). Returns when to
    /// try again after a failure.
    pub async fn step<R: Runtime>(
        &mut self,
        context: &Context<R>,
        pod: Option<&Arc<Pod>>,
        desired: Option<&DesiredPod>,
    ) -> Option<Instant> {
        let desired = desired?;
        let is_projected = |volume: &Volume| matches!(volume, Volume::Projected(_));
        let pod = pod.filter(|pod| pod.volumes.values().any(is_projected))?;
        let now = instant();
        let is_followed = |last: &Followed| Arc::ptr_eq(&last.pod, pod) && Arc::ptr_eq(&last.objects, &desired.objects);
        if let Some(last) = self.last.as_ref().filter(|last| is_followed(last))
            && last.again.is_none_or(|again| again > now)
        {
            return last.again;
        }
        let material = Material::of(context, pod, Some(desired));
        let failed = blocking(move || material.measured().follow()).await;
        for Failed { error, .. } in &failed {
            context.warn("FailedMount", error.chain());
        }
        // A missing object needs no retry: its arrival changes `objects`.
        let is_passing = failed.iter().any(|failed| failed.error.kind() == ErrorKind::Unavailable);
        let again = is_passing.then(|| after(now, FOLLOW_AGAIN));
        self.last = Some(Followed { pod: Arc::clone(pod), objects: Arc::clone(&desired.objects), again });
        again
    }
}

impl Material {
    fn of<R: Runtime>(context: &Context<R>, pod: &Arc<Pod>, desired: Option<&DesiredPod>) -> Self {
        let Shared { config, capacity, node_addresses, admission, .. } = &*context.shared;
        Self {
            pod: Arc::clone(pod),
            objects: desired.map(|desired| Arc::clone(&desired.objects)).unwrap_or_default(),
            files: context.files(pod.uid.clone()),
            capacity: *capacity,
            disk: config.state_dir.clone(),
            node_addresses: node_addresses.borrow().clone(),
            resolv_conf: config.resolv_conf.clone(),
            has_se_linux: admission.se_linux,
        }
    }

    /// Adds the size of the disk, which only a system call tells.
    fn measured(mut self) -> Self {
        self.capacity.ephemeral_storage = files::disk_size(&self.disk).unwrap_or(0);
        self
    }

    /// Prepares the pod's volumes. Returns the paths of those that have one on the node.
    fn volumes(&self, is_new: bool) -> Result<BTreeMap<String, PathBuf>, Failed> {
        let site = self.site(is_new);
        let path = |(name, volume): (&String, &Volume)| {
            let path =
                files::prepare_volume(name, volume, &site).map_err(|error| not_mounted(name, &error)).transpose()?;
            Some(path.map(|path| (name.clone(), path)))
        };
        self.pod.volumes.iter().filter_map(path).collect()
    }

    /// Rewrites the volumes that follow changes. Returns the failures; a volume that could not be written stays as it
    /// was.
    fn follow(&self) -> Vec<Failed> {
        let site = self.site(false);
        let failed = |(name, volume): (&String, &Volume)| {
            files::follow_volume(name, volume, &site).err().map(|error| not_mounted(name, &error))
        };
        self.pod.volumes.iter().filter_map(failed).collect()
    }

    fn site(&self, is_new: bool) -> Site<'_> {
        let (pod, files, objects, capacity) = (&self.pod, &self.files, &self.objects, &self.capacity);
        Site { pod, files, objects, capacity, is_new, written: Cell::new(0) }
    }

    fn prepare(self, container: &Container, attempt: u32, addresses: &[IpAddr]) -> Result<Prepared, Failed> {
        let failed = |tried: String, error: &(dyn std::error::Error + 'static)| {
            Failed::new(Reason::CreateContainerConfigError, Error::new(ErrorKind::Other, tried).caused_by(error))
        };
        let of = |tried: &str| format!("{tried} of pod {}", self.pod.key);
        self.files.create(&container.name).map_err(|error| failed(of("making the directories"), &error))?;
        let volumes = self.volumes(false)?;
        let etc = files::write_etc(&self.files.etc(), &self.pod, addresses, self.resolv_conf.as_deref());
        let etc = etc.map_err(|error| failed(of("writing the files in /etc"), &error))?;
        let message = self.files.make_message(&container.name, attempt);
        let message = message.map_err(|error| failed(of("making the file for the last words"), &error))?;
        let place = |name: &str| volumes.get(name).map(PathBuf::as_path);
        let failed_env = |error: EnvError| {
            let failed = Error::new(ErrorKind::Other, error.to_string());
            let failed =
                std::error::Error::source(&error).into_iter().fold(failed, |failed, cause| failed.caused_by(cause));
            Failed::new(Reason::CreateContainerConfigError, failed)
        };
        let mut environment = Environment::of(container, &self.inputs(addresses, &place)).map_err(failed_env)?;
        let managed = etc.files.into_iter().map(|(source, place)| (source, place.to_owned()));
        let managed: Vec<_> = managed.chain(container.message_path.clone().map(|place| (message, place))).collect();
        self.label(container, managed.iter().map(|(source, _)| source), &volumes)
            .map_err(|error| failed(of("labelling the volumes"), &error))?;
        Ok(Prepared {
            mounts: mounts::mounts(&self, container, &volumes, managed, &environment)?,
            warnings: etc.warnings,
            command: environment.expanded(container.command.as_deref()).map_err(failed_env)?,
            args: environment.expanded(container.args.as_deref()).map_err(failed_env)?,
            env: environment.into_variables(),
        })
    }

    /// Labels the agent's own files and volumes for a container with an SELinux context. `hostPath` volumes keep their
    /// labels (R-MNT-7).
    fn label<'a>(
        &self,
        container: &Container,
        managed: impl Iterator<Item = &'a PathBuf>,
        volumes: &'a BTreeMap<String, PathBuf>,
    ) -> io::Result<()> {
        let context = container.security.se_linux.as_ref().filter(|_| self.has_se_linux);
        let Some(context) = context.filter(|_| !container.security.privileged) else { return Ok(()) };
        let label = security::se_linux(context).of_files();
        let is_managed = |name: &String| !matches!(self.pod.volumes.get(name), Some(Volume::HostPath { .. }));
        let mounted = container.mounts.iter().map(|mount| &mount.volume).filter(|name| is_managed(name));
        let volumes = mounted.filter_map(|name| volumes.get(name));
        managed.chain(volumes).try_for_each(|path| files::label(path, &label))
    }

    fn inputs<'a>(
        &'a self,
        addresses: &'a [IpAddr],
        volume: &'a dyn Fn(&str) -> Option<&'a std::path::Path>,
    ) -> Inputs<'a> {
        Inputs {
            objects: &self.objects,
            pod_addresses: if self.pod.host_network { &self.node_addresses } else { addresses },
            node_addresses: &self.node_addresses,
            capacity: self.capacity,
            volume,
        }
    }
}

/// Returns the failure for a volume that cannot be mounted. The pod waits and tries again soon: a missing object or
/// path may come at any moment.
fn not_mounted(name: &str, error: &VolumeError) -> Failed {
    let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
    let error = match std::error::Error::source(error) {
        Some(cause) => Error::new(ErrorKind::Unavailable, message).caused_by(cause),
        None => Error::new(ErrorKind::Conflict, message),
    };
    Failed::new(Reason::NotMounted, error)
}
