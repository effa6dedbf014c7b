//! What a container needs on the node before it can be made: volumes, managed files, environment.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use stanchion_pod::{Capacity, Container, Objects, Pod, Volume};
use stanchion_runtime::{ContainerConfig, EnvVar, Error, ErrorKind, Runtime};

use super::{Worker, container, perform::Failed};
use crate::{
    desired::DesiredPod,
    env::{Environment, Inputs},
    files::{self, PodFiles, VolumeError},
    plan::Run,
};

/// What was made ready for one container.
pub(super) struct Prepared {
    /// Where each volume is on the node.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The files in `/etc` that the agent manages, with their places.
    pub etc: Vec<(PathBuf, &'static str)>,
    /// The file for its last words.
    pub message: PathBuf,
    pub env: Vec<EnvVar>,
    pub command: Option<Vec<String>>,
    pub args: Option<Vec<String>>,
}

/// What a pod's files and environments are made of; owned, for the blocking pool.
#[derive(Clone)]
struct Material {
    pod: Arc<Pod>,
    objects: Arc<Objects>,
    files: PodFiles,
    capacity: Capacity,
    node_addresses: Vec<IpAddr>,
}

impl<R: Runtime> Worker<R> {
    /// Makes the pod's volumes ready (R-VOL-1). What is ready already is left as it is.
    pub(super) async fn prepare_volumes(&self, pod: &Arc<Pod>, desired: Option<&DesiredPod>) -> Result<(), Failed> {
        let material = self.material(pod, desired);
        blocking(move || material.volumes().map(drop)).await
    }

    /// A container's configuration, and all that it names made ready.
    pub(super) async fn configure(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        run: &Run,
        addresses: Vec<IpAddr>,
        desired: Option<&DesiredPod>,
    ) -> Result<ContainerConfig, Failed> {
        let material = self.material(pod, desired);
        let log_path = material.files.log(&container.name, run.attempt);
        let (own, attempt) = (container.clone(), run.attempt);
        let prepared = blocking(move || material.prepare(&own, attempt, &addresses)).await?;
        let memory_capacity = self.shared.memory_capacity;
        let config = &self.shared.config;
        let start = container::Start { run, prepared, log_path, memory_capacity, config };
        Ok(container::container(pod, container, start))
    }

    fn material(&self, pod: &Arc<Pod>, desired: Option<&DesiredPod>) -> Material {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Material {
            pod: Arc::clone(pod),
            objects: desired.map(|desired| Arc::clone(&desired.objects)).unwrap_or_default(),
            files: self.files(pod.uid.clone()),
            capacity: Capacity {
                cpu: u64::try_from(cores).unwrap_or(1) * 1000,
                memory: self.shared.memory_capacity,
                ephemeral_storage: 0,
            },
            node_addresses: self.shared.node_addresses.clone(),
        }
    }
}

impl Material {
    fn volumes(&self) -> Result<BTreeMap<String, PathBuf>, Failed> {
        let path = |(name, volume): (&String, &Volume)| {
            let path = files::prepare_volume(name, volume, &self.files).map_err(|error| not_mounted(name, &error))?;
            Ok((name.clone(), path))
        };
        self.pod.volumes.iter().map(path).collect()
    }

    fn prepare(mut self, container: &Container, attempt: u32, addresses: &[IpAddr]) -> Result<Prepared, Failed> {
        let failed = |tried: &str, error: &(dyn std::error::Error + 'static)| Failed {
            reason: "CreateContainerConfigError",
            error: Error::new(ErrorKind::Other, format!("{tried} of pod {}", self.pod.key)).caused_by(error),
        };
        self.files.create(&container.name).map_err(|error| failed("making the directories", &error))?;
        self.capacity.ephemeral_storage = files::disk_size(self.files.root()).unwrap_or(0);
        let volumes = self.volumes()?;
        let etc = files::write_etc(&self.files.etc(), &self.pod, addresses);
        let etc = etc.map_err(|error| failed("writing the files in /etc", &error))?;
        let message = self.files.make_message(&container.name, attempt);
        let message = message.map_err(|error| failed("making the file for the last words", &error))?;
        let environment =
            Environment::of(container, &self.inputs(addresses, &|name| volumes.get(name).map(PathBuf::as_path)));
        let environment = environment.map_err(|error| Failed {
            reason: "CreateContainerConfigError",
            error: Error::new(ErrorKind::Other, error.to_string()),
        })?;
        Ok(Prepared {
            command: environment.expanded(container.command.as_deref()),
            args: environment.expanded(container.args.as_deref()),
            env: environment.into_variables(),
            volumes,
            etc,
            message,
        })
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

/// A volume that cannot be mounted holds its pod back, and is tried again soon: what it lacks may come at any moment.
fn not_mounted(name: &str, error: &VolumeError) -> Failed {
    let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
    let error = match std::error::Error::source(error) {
        Some(cause) => Error::new(ErrorKind::Unavailable, message).caused_by(cause),
        None => Error::new(ErrorKind::Unavailable, message),
    };
    Failed { reason: Failed::NOT_MOUNTED, error }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failed> + Send + 'static) -> Result<T, Failed> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => Err(Failed {
            reason: "CreateContainerConfigError",
            error: Error::new(ErrorKind::Crashed, "preparing the volumes ended abnormally").caused_by(&panic),
        }),
    }
}
