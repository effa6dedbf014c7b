//! Inputs of a pod's files and environments; preparation of its volumes.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use stanchion_plan::reason::Reason;
use stanchion_pod::{Capacity, Container, Objects, Pod, Volume};
use stanchion_runtime::{Error, ErrorKind, Runtime};

use super::{context::Context, failed::Failed, security};
use crate::{
    desired::DesiredPod,
    env::Inputs,
    files::{self, PodFiles, VolumeError, VolumeInputs},
    shared::Shared,
};

/// Inputs of a pod's volumes, files and environments. It owns them, so that it can move to the blocking pool.
pub(super) struct PodInputs {
    pub pod: Arc<Pod>,
    objects: Arc<Objects>,
    pub files: PodFiles,
    capacity: Capacity,
    /// Directory on the file system whose size is the node's ephemeral storage.
    disk: PathBuf,
    node_addresses: Vec<IpAddr>,
    pub resolv_conf: Option<PathBuf>,
    /// `true` if the node has SELinux.
    has_se_linux: bool,
}

impl PodInputs {
    pub fn of<R: Runtime>(context: &Context<R>, pod: &Arc<Pod>, desired: Option<&DesiredPod>) -> Self {
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

    /// Adds the size of that file system. The system call may block.
    pub fn measured(mut self) -> Self {
        self.capacity.ephemeral_storage = files::disk_size(&self.disk).unwrap_or(0);
        self
    }

    /// Prepares the pod's volumes. Returns the paths of those that have a path on the node.
    pub fn volumes(&self, is_new: bool) -> Result<BTreeMap<String, PathBuf>, Failed> {
        let inputs = self.volume_inputs(is_new);
        let path = |(name, volume): (&String, &Volume)| {
            let path =
                files::prepare_volume(name, volume, &inputs).map_err(|error| not_mounted(name, &error)).transpose()?;
            Some(path.map(|path| (name.clone(), path)))
        };
        self.pod.volumes.iter().filter_map(path).collect()
    }

    /// Refreshes the volumes that follow ConfigMaps and Secrets. Returns the failures; a volume that could not be
    /// written keeps its old files.
    pub fn refresh(&self) -> Vec<Failed> {
        let inputs = self.volume_inputs(false);
        let failed = |(name, volume): (&String, &Volume)| {
            files::refresh_volume(name, volume, &inputs).err().map(|error| not_mounted(name, &error))
        };
        self.pod.volumes.iter().filter_map(failed).collect()
    }

    fn volume_inputs(&self, is_new: bool) -> VolumeInputs<'_> {
        let (pod, files, objects, capacity) = (&self.pod, &self.files, &self.objects, &self.capacity);
        VolumeInputs { pod, files, objects, capacity, is_new, written: Cell::new(0) }
    }

    /// Labels the agent's own files and volumes for a container with an SELinux context. `hostPath` volumes keep their
    /// labels (R-MNT-7).
    pub fn label<'a>(
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

    pub fn env_inputs<'a>(
        &'a self,
        addresses: &'a [IpAddr],
        volume: &'a dyn Fn(&str) -> Option<&'a Path>,
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
/// path may appear at any moment.
fn not_mounted(name: &str, error: &VolumeError) -> Failed {
    let message = format!("MountVolume.SetUp failed for volume {name:?} : {error}");
    let error = match std::error::Error::source(error) {
        Some(cause) => Error::new(ErrorKind::Unavailable, message).caused_by(cause),
        None => Error::new(ErrorKind::Conflict, message),
    };
    Failed::new(Reason::NotMounted, error)
}
