//! Containers: record, snapshot, task.

use std::{collections::HashMap, path::Path, time::Duration};

use containerd_client::{
    services::v1::{
        Container, CreateContainerRequest, CreateTaskRequest, DeleteTaskRequest, KillRequest, StartRequest,
        WaitRequest,
        container::Runtime as RecordRuntime,
        snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest},
    },
    tonic::{Code, Status},
    types::Mount,
};
use oci_spec::runtime::Spec;
use prost_types::Any;
use stanchion_sdk::runtime::{ContainerConfig, ContainerId, Error, ErrorKind, Result};

use crate::{
    Containerd,
    client::{failed, is_gone},
    image::Resolved,
    names, spec,
};

/// Type of an OCI runtime configuration in a record.
const SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;

impl Containerd {
    /// Record, snapshot and created task, in the order in which each is found through the one before.
    pub(crate) async fn make_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        let sandbox_id = config.sandbox.0.clone();
        let (sandbox, image) = tokio::join!(self.record(&sandbox_id), self.images.resolve(&config.image));
        let image = image?;
        let sandbox = sandbox?.ok_or_else(|| {
            Error::new(ErrorKind::Conflict, format!("sandbox {sandbox_id} of container {} is gone", config.name))
        })?;
        let id = names::id(&config.name, &["container", &sandbox_id, &config.name], config.attempt);
        let needs_files =
            image.config.config().as_ref().and_then(|it| it.user().as_deref()).is_some_and(spec::has_names);
        let spec = if needs_files { None } else { Some(self.spec(&id, &config, &sandbox, &image, None)?) };

        self.create_record(&id, &config, &sandbox_id, &image, spec.as_ref()).await?;
        let made = self.create_files(&id, &config, &sandbox, &image, spec.is_none()).await;
        let made = match made {
            Ok(rootfs) => self.create_task(&id, &config, rootfs).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            if let Err(left) = self.erase_container(&ContainerId(id.clone())).await {
                tracing::warn!(container = id, error = left.chain(), "a half made container is left to be removed");
            }
            return Err(error);
        }
        Ok(ContainerId(id))
    }

    async fn create_record(
        &self,
        id: &str,
        config: &ContainerConfig,
        sandbox: &str,
        image: &Resolved,
        spec: Option<&Spec>,
    ) -> Result<()> {
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        let stop_signal = image.config.config().as_ref().and_then(|it| it.stop_signal().clone()).unwrap_or_default();
        labels.extend([
            (names::KIND.to_owned(), "container".to_owned()),
            (names::ATTEMPT.to_owned(), config.attempt.to_string()),
            (names::SANDBOX.to_owned(), sandbox.to_owned()),
            (names::NAME.to_owned(), config.name.clone()),
            (names::IMAGE_DIGEST.to_owned(), image.digest.to_string()),
            (names::STOP_SIGNAL.to_owned(), stop_signal),
        ]);
        let value = match spec {
            Some(spec) => encode(spec)?,
            None => b"{}".to_vec(),
        };
        let record = Container {
            id: id.to_owned(),
            labels,
            image: config.image.clone(),
            runtime: Some(RecordRuntime { name: self.config.runtime.clone(), options: None }),
            spec: Some(Any { type_url: SPEC_URL.to_owned(), value }),
            snapshotter: self.config.snapshotter.clone(),
            // Named before it exists, so that garbage collection never takes it in between.
            snapshot_key: id.to_owned(),
            ..Container::default()
        };
        let create = CreateContainerRequest { container: Some(record) };
        let created = self.client.containers().create(self.client.request(create)).await;
        created.map(drop).map_err(|status| failed(format!("creating container {id}"), &status))
    }

    /// The snapshot with the container's files; where its specification had to wait for them, that too.
    async fn create_files(
        &self,
        id: &str,
        config: &ContainerConfig,
        sandbox: &Container,
        image: &Resolved,
        complete_spec: bool,
    ) -> Result<Vec<Mount>> {
        let prepare = PrepareSnapshotRequest {
            snapshotter: self.config.snapshotter.clone(),
            key: id.to_owned(),
            parent: image.chain_id.clone(),
            ..PrepareSnapshotRequest::default()
        };
        let prepared = self.client.snapshots().prepare(self.client.request(prepare)).await;
        let mounts = match prepared {
            Ok(prepared) => prepared.into_inner().mounts,
            Err(status) if status.code() == Code::AlreadyExists => self.mounts(id).await?,
            Err(status) => {
                // Something of the image is gone: the next look-up starts from the store.
                self.images.forget_resolved();
                return Err(failed(format!("preparing the files of container {id}"), &status));
            }
        };
        if complete_spec {
            let spec = mounts_read(&mounts, |rootfs| self.spec(id, config, sandbox, image, Some(rootfs)))?;
            self.set_spec(id, &spec).await?;
        }
        Ok(mounts)
    }

    async fn mounts(&self, id: &str) -> Result<Vec<Mount>> {
        let request = MountsRequest { snapshotter: self.config.snapshotter.clone(), key: id.to_owned() };
        let mounts = self.client.snapshots().mounts(self.client.request(request)).await;
        mounts
            .map(|it| it.into_inner().mounts)
            .map_err(|status| failed(format!("finding the files of container {id}"), &status))
    }

    async fn set_spec(&self, id: &str, spec: &Spec) -> Result<()> {
        let spec = Some(Any { type_url: SPEC_URL.to_owned(), value: encode(spec)? });
        let container = Container { id: id.to_owned(), spec, ..Container::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["spec".to_owned()] });
        let update =
            containerd_client::services::v1::UpdateContainerRequest { container: Some(container), update_mask };
        let updated = self.client.containers().update(self.client.request(update)).await;
        updated.map(drop).map_err(|status| failed(format!("completing container {id}"), &status))
    }

    async fn create_task(&self, id: &str, config: &ContainerConfig, rootfs: Vec<Mount>) -> Result<()> {
        let log = self.log_uri(&config.log_path);
        let create = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdout: log.clone(),
            stderr: log,
            ..CreateTaskRequest::default()
        };
        let created = self.client.tasks().create(self.client.request(create)).await;
        created.map(drop).map_err(|status| failed(format!("creating the process of container {id}"), &status))
    }

    /// The logger, as a program that the shim runs.
    fn log_uri(&self, path: &Path) -> String {
        if path.as_os_str().is_empty() {
            return String::new();
        }
        let escape = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
            text.bytes().fold(String::new(), |mut escaped, byte| {
                match plain(byte) {
                    true => escaped.push(char::from(byte)),
                    false => escaped.push_str(&format!("%{byte:02X}")),
                }
                escaped
            })
        };
        let (logger, path) = (escape(&self.logger.to_string_lossy()), escape(&path.to_string_lossy()));
        let (size, files) = (self.config.log_max_size, self.config.log_max_files);
        format!("binary://{logger}?log={path}&max-files={files}&max-size={size}")
    }

    fn spec(
        &self,
        id: &str,
        config: &ContainerConfig,
        sandbox: &Container,
        image: &Resolved,
        rootfs: Option<&Path>,
    ) -> Result<Spec> {
        let label = |label: &str| sandbox.labels.get(label).map(String::as_str).unwrap_or_default();
        let parts = spec::Parts {
            config,
            image,
            rootfs,
            namespaces: &self.namespaces(&sandbox.id),
            own_network: label(names::NETWORK) != "host",
            hostname: label(names::HOSTNAME),
            cgroup: format!("{}/{}/{id}", self.config.cgroup_root, label(names::CGROUP)),
            group: &sandbox.id,
        };
        spec::spec(&parts).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("configuring container {}", config.name)).caused_by(&error)
        })
    }

    pub(crate) async fn run_task(&self, id: &ContainerId) -> Result<()> {
        let request = StartRequest { container_id: id.0.clone(), exec_id: String::new() };
        let started = self.client.tasks().start(self.client.request(request)).await;
        started.map(drop).map_err(|status| failed(format!("starting container {id}"), &status))
    }

    pub(crate) async fn halt_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let record = self.record(&id.0).await?;
        let named = record.and_then(|record| record.labels.get(names::STOP_SIGNAL).cloned());
        let signal = named.and_then(|name| signal(&name)).unwrap_or(SIGTERM);
        // Asked before the signal is sent, so that the end cannot be missed.
        let waiting = self.wait_task(id);
        tokio::pin!(waiting);
        if !grace.is_zero() {
            if !self.signal(id, signal, false).await? {
                return Ok(());
            }
            if let Ok(ended) = tokio::time::timeout(grace, &mut waiting).await {
                return ended;
            }
        }
        if !self.signal(id, SIGKILL, true).await? {
            return Ok(());
        }
        waiting.await
    }

    /// Waits until a container has ended.
    async fn wait_task(&self, id: &ContainerId) -> Result<()> {
        let request = WaitRequest { container_id: id.0.clone(), exec_id: String::new() };
        match self.client.tasks().wait(self.client.request(request)).await {
            Err(status) if !is_over(&status) => Err(failed(format!("waiting for the end of container {id}"), &status)),
            _ => Ok(()),
        }
    }

    /// Sends a signal. Whether there was anything to receive it.
    async fn signal(&self, id: &ContainerId, signal: u32, all: bool) -> Result<bool> {
        let request = KillRequest { container_id: id.0.clone(), exec_id: String::new(), signal, all };
        match self.client.tasks().kill(self.client.request(request)).await {
            Ok(_) => Ok(true),
            Err(status) if is_over(&status) => Ok(false),
            Err(status) => Err(failed(format!("signalling container {id}"), &status)),
        }
    }

    pub(crate) async fn erase_container(&self, id: &ContainerId) -> Result<()> {
        self.halt_container(id, Duration::ZERO).await?;
        let delete = DeleteTaskRequest { container_id: id.0.clone() };
        match self.client.tasks().delete(self.client.request(delete)).await {
            Err(status) if !is_over(&status) => {
                return Err(failed(format!("removing the process of container {id}"), &status));
            }
            _ => {}
        }
        let remove = RemoveSnapshotRequest { snapshotter: self.config.snapshotter.clone(), key: id.0.clone() };
        match self.client.snapshots().remove(self.client.request(remove)).await {
            Err(status) if !is_gone(&status) => {
                return Err(failed(format!("removing the files of container {id}"), &status));
            }
            _ => {}
        }
        self.delete_record(&id.0).await
    }
}

/// Whether a task cannot be acted on because it is over.
fn is_over(status: &Status) -> bool {
    is_gone(status) || status.message().contains("process already finished")
}

/// Number of a signal by name or number, as images write it.
fn signal(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    let signal: nix::sys::signal::Signal = name.parse().ok()?;
    u32::try_from(signal as i32).ok()
}

fn encode(spec: &Spec) -> Result<Vec<u8>> {
    serde_json::to_vec(spec)
        .map_err(|error| Error::new(ErrorKind::Other, "writing an OCI configuration").caused_by(&error))
}

/// Shows a snapshot's files for a moment, to look up names of users in them. Only the layers are needed, read-only.
fn mounts_read<T>(mounts: &[Mount], act: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::new(ErrorKind::Other, "looking into the image's files").caused_by(error)
    };
    let directory = tempfile::tempdir().map_err(|error| failed(&error))?;
    let mount = mounts.first().ok_or_else(|| Error::new(ErrorKind::Other, "the snapshot has no mounts"))?;
    let is_flag = |option: &&String| matches!(option.as_str(), "rw" | "ro" | "rbind" | "bind");
    let data: Vec<_> = mount.options.iter().filter(|option| !is_flag(option)).map(String::as_str).collect();
    let flags = match mount.r#type.as_str() {
        "bind" => nix::mount::MsFlags::MS_BIND,
        _ => nix::mount::MsFlags::MS_RDONLY,
    };
    let data = data.join(",");
    let kind = Some(mount.r#type.as_str()).filter(|kind| *kind != "bind");
    let mounted = nix::mount::mount(Some(mount.source.as_str()), directory.path(), kind, flags, Some(data.as_str()));
    mounted.map_err(|error| failed(&error))?;
    let result = act(directory.path());
    nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH).map_err(|error| failed(&error))?;
    result
}
