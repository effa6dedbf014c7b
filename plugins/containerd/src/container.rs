//! Containers: each is one record with all that is needed to start it. The start makes its snapshot and task.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use containerd_client::services::v1::{
    Container, CreateContainerRequest, container::Runtime as RecordRuntime, snapshots::RemoveSnapshotRequest,
};
use oci_spec::runtime::Spec;
use prost::Message;
use prost_types::Any;
use stanchion_sdk::{
    runtime::{ContainerConfig, ContainerId, Error, ErrorKind, PidMode, Result, SandboxId},
    users::Tables,
};

use crate::{
    Containerd,
    cgroup::Cgroup,
    changes::finish,
    client::{failed, is_gone},
    image::Resolved,
    names,
    sandbox::has_pause,
    shim, spec, unattended,
    volumes::{self, Volume},
};

/// Type URL of an OCI runtime configuration in a record.
pub(crate) const SPEC_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// Parts of a container that go into its record.
struct Made<'a> {
    image: &'a Resolved,
    volumes: &'a [Volume],
    spec: Spec,
    /// Path from the root of the cgroup hierarchy.
    cgroup: String,
}

impl Containerd {
    /// Creates a container with one write: a crash leaves either nothing or a container that can be started and
    /// removed.
    pub(crate) async fn make_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        // Nobody may remove the sandbox meanwhile.
        let turn = self.changes.turn(config.sandbox.as_str()).await;
        let backend = self.clone();
        finish(turn, async move { backend.make_container_now(config).await }).await
    }

    async fn make_container_now(&self, mut config: ContainerConfig) -> Result<ContainerId> {
        if config.stdin && !config.tty {
            // With a logger program for the output, containerd's shim connects no standard input.
            let message = format!("container {}: standard input without a terminal", config.name);
            return Err(Error::unsupported(message).because("set tty too, or remove stdin; there is stanchion exec -i"));
        }
        let (sandbox, image) = tokio::join!(self.usable_sandbox(&config), self.images.resolve(&config.image));
        let (sandbox, image) = (sandbox?, image?);
        if config.attempt > 0 {
            self.end_lost_lives(&config).await?;
        }
        let id = names::id(&config.name, &["container", config.sandbox.as_str(), &config.name], config.attempt);
        let tables = self.tables(&id, &image).await?;
        let volumes = self.volumes(&id, &mut config, &image, sandbox.labels.contains_key(names::USERS)).await?;
        let pod = sandbox.labels.get(names::CGROUP).map(String::as_str).unwrap_or_default();
        let (cgroup, path) = self.parent(pod)?.container(&id);
        let spec = self.spec(&config, &sandbox, &image, &tables, &cgroup)?;
        let made = Made { image: &image, volumes: &volumes, spec, cgroup: path };
        let record = self.container_record(&id, &config, &sandbox, made)?;
        let create = CreateContainerRequest { container: Some(record) };
        let created = self.client.containers().create(self.client.request(create)).await;
        created.map_err(|status| failed(format!("creating container {id}"), &status))?;
        Ok(ContainerId(id))
    }

    /// Ends processes left from earlier attempts of a container: without its bundle containerd forgets a task, but its
    /// processes run on.
    async fn end_lost_lives(&self, config: &ContainerConfig) -> Result<()> {
        let label = |label: &str, value: &str| format!("labels.\"{label}\"==\"{value}\"");
        let (sandbox, name) = (label(names::SANDBOX, config.sandbox.as_str()), label(names::NAME, &config.name));
        for record in self.records(vec![format!("{sandbox},{name}")]).await? {
            let cgroup = record.labels.get(names::CGROUP).map(|path| Cgroup::at(path));
            let is_alive = cgroup.is_some_and(|cgroup| cgroup.population().unwrap_or(0) > 0);
            if is_alive && self.task(&record.id).await?.is_none() {
                tracing::warn!(
                    container = record.id,
                    "it runs on, lost by containerd; it is ended before its next life"
                );
                self.clean_up_after(&record).await?;
            }
        }
        Ok(())
    }

    /// Returns the record of the sandbox, or an error if containers cannot run in it.
    async fn usable_sandbox(&self, config: &ContainerConfig) -> Result<Container> {
        let (id, name) = (&config.sandbox, &config.name);
        let record = self.record(id.as_str()).await?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("creating container {name}: its sandbox {id} does not exist"))
        })?;
        let pause = if has_pause(&record) { self.task(id.as_str()).await? } else { None };
        match self.sandbox_fault(&record, pause.as_ref()) {
            None => Ok(record),
            Some(fault) => {
                let message = format!("creating container {name}: its sandbox {id} is not ready");
                Err(Error::new(ErrorKind::Conflict, message).because(fault))
            }
        }
    }

    fn container_record(
        &self,
        id: &str,
        config: &ContainerConfig,
        sandbox: &Container,
        made: Made<'_>,
    ) -> Result<Container> {
        let Made { image, volumes, mut spec, cgroup } = made;
        let stop_signal = image.config.config.stop_signal.clone();
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        labels.extend(
            [
                (names::KIND, "container".to_owned()),
                (names::ATTEMPT, config.attempt.to_string()),
                (names::SANDBOX, config.sandbox.0.clone()),
                (names::NAME, config.name.clone()),
                (names::CGROUP, cgroup),
                (names::IMAGE_DIGEST, image.digest.to_string()),
                (names::LAYERS, image.chain_id.clone()),
                (names::LOG, self.log_uri(&config.log_path, config.stdin.then(|| self.input(id)).as_deref())),
                (names::STOP_SIGNAL, stop_signal),
            ]
            .map(|(label, value)| (label.to_owned(), value)),
        );
        labels.extend(volumes::labels(volumes, &self.config.snapshotter));
        let users = sandbox.labels.get(names::USERS);
        labels.extend(users.map(|users| (names::USERS.to_owned(), users.clone())));
        if config.tty {
            labels.insert(names::TERMINAL.to_owned(), "true".to_owned());
        }
        if config.stdin {
            labels.insert(names::INPUT.to_owned(), self.input(id).to_string_lossy().into_owned());
        }
        let failed = |error: serde_json::Error| {
            Error::new(ErrorKind::Other, format!("writing the OCI configuration of container {id}")).caused_by(&error)
        };
        let notes = unattended::notes(&labels, &config.image, sandbox).map_err(failed)?;
        let annotations = spec.annotations_mut().get_or_insert_default();
        annotations.extend(notes);
        if !volumes.is_empty() {
            annotations.extend([volumes::note(volumes).map_err(failed)?]);
        }
        let value = serde_json::to_vec(&spec).map_err(failed)?;
        Ok(Container {
            id: id.to_owned(),
            labels,
            image: config.image.clone(),
            runtime: Some(self.record_runtime()),
            spec: Some(Any { type_url: SPEC_URL.to_owned(), value }),
            snapshotter: self.config.snapshotter.clone(),
            // The record names the snapshot before it exists, so that garbage collection never removes it in between.
            snapshot_key: id.to_owned(),
            ..Container::default()
        })
    }

    /// Returns the path of the FIFO for a container's standard input.
    fn input(&self, id: &str) -> PathBuf {
        self.run_dir.join("input").join(id)
    }

    /// Returns the runtime for every record that Stanchion creates.
    pub(crate) fn record_runtime(&self) -> RecordRuntime {
        let options = RuncOptions {
            binary_name: self.config.runtime_binary.clone().unwrap_or_default(),
            root: self.config.runtime_root.as_ref().map(|root| root.display().to_string()).unwrap_or_default(),
            systemd_cgroup: self.config.systemd_cgroup,
        };
        let options = (options != RuncOptions::default())
            .then(|| Any { type_url: "containerd.runc.v1.Options".to_owned(), value: options.encode_to_vec() });
        RecordRuntime { name: self.config.runtime.clone(), options }
    }

    /// Returns the URI of the logger, a program that the shim runs. The logger holds the input open: the shim treats a
    /// FIFO without a writer as ended.
    fn log_uri(&self, path: &Path, input: Option<&Path>) -> String {
        if path.as_os_str().is_empty() {
            return String::new();
        }
        let (logger, path) = (escape(&self.logger), escape(path));
        let (size, files) = (self.config.log_max_size, self.config.log_max_files);
        let input = input.map_or_else(String::new, |input| format!("input={}&", escape(input)));
        format!("binary://{logger}?{input}log={path}&max-files={files}&max-size={size}")
    }

    fn spec(
        &self,
        config: &ContainerConfig,
        sandbox: &Container,
        image: &Resolved,
        tables: &Tables,
        cgroup: &str,
    ) -> Result<Spec> {
        let label = |label: &str| sandbox.labels.get(label).map(String::as_str).unwrap_or_default();
        let parts = spec::Parts {
            config,
            image,
            tables,
            namespaces: &self.namespaces(&sandbox.id),
            own: names::noted_own(|label| sandbox.labels.get(label)),
            pid: match label(names::PID) {
                "pod" => PidMode::Pod,
                "host" => PidMode::Host,
                _ => PidMode::Container,
            },
            hostname: label(names::HOSTNAME),
            cgroup,
            group: &sandbox.id,
        };
        spec::spec(&parts).map_err(|error| {
            Error::new(ErrorKind::Invalid, format!("configuring container {}", config.name)).caused_by(&error)
        })
    }

    pub(crate) async fn erase_container(&self, id: &ContainerId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.erase_container_now(&id).await }).await
    }

    /// Removes everything that is found through the record, then the record.
    async fn erase_container_now(&self, id: &ContainerId) -> Result<()> {
        // Without a record nothing is left: the record goes last.
        let Some(record) = self.record(id.as_str()).await? else { return Ok(()) };
        let deleted = self.end_task(id).await?;
        if !deleted {
            // It never started, or its task was lost with its shim; then nobody else cleans up.
            self.clean_up_after(&record).await?;
        }
        let remove = RemoveSnapshotRequest { snapshotter: record.snapshotter.clone(), key: id.0.clone() };
        match self.client.snapshots().remove(self.client.request(remove)).await {
            Err(status) if !is_gone(&status) => {
                return Err(failed(format!("removing the files of container {id}"), &status));
            }
            _ => {}
        }
        self.erase_volumes(&record).await?;
        if let Some(input) = record.labels.get(names::INPUT) {
            match tokio::fs::remove_file(input).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let tried = format!("removing the input of container {id}");
                    return Err(Error::new(ErrorKind::Other, tried).caused_by(&error));
                }
                _ => {}
            }
        }
        self.delete_record(id.as_str()).await
    }

    /// Removes what a container without a task may have left: its shim (unless others of its sandbox have a task: they
    /// may share it), its processes, and runc's state.
    pub(crate) async fn clean_up_after(&self, record: &Container) -> Result<()> {
        let id = &record.id;
        let failed = |what: &'static str| {
            let tried = format!("removing {what} of container {id}");
            move |error: io::Error| Error::new(ErrorKind::Other, tried).caused_by(&error)
        };
        let sandbox = SandboxId(record.labels.get(names::SANDBOX).cloned().unwrap_or_default());
        let mut is_shared = false;
        for other in self.members(&sandbox).await?.iter().filter(|other| other.as_str() != id) {
            is_shared |= self.task(other.as_str()).await?.is_some();
        }
        if !is_shared {
            let (backend, id) = (self.clone(), id.clone());
            let ended = move |_| Ok(shim::end(&backend.config.socket, backend.client.namespace(), &id));
            self.blocking(ended).await?.map_err(failed("a forgotten shim"))?;
        }
        if let Some(path) = record.labels.get(names::CGROUP) {
            Cgroup::at(path).destroy().await.map_err(failed("the cgroup"))?;
        }
        let root = runtime_root(record);
        shim::remove_record(&root, self.client.namespace(), id).map_err(failed("runc's record"))
    }

    /// Lists the containers of a sandbox.
    pub(crate) async fn members(&self, id: &SandboxId) -> Result<Vec<ContainerId>> {
        let filters = vec![format!("labels.\"{}\"==\"{id}\"", names::SANDBOX)];
        let records = self.records(filters).await?;
        Ok(records.into_iter().map(|container| ContainerId(container.id)).collect())
    }
}

/// Used fields of `containerd.runc.v1.Options`.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    /// Program of the OCI runtime.
    #[prost(string, tag = "6")]
    binary_name: String,
    /// State directory of the OCI runtime; empty for the shim's default.
    #[prost(string, tag = "7")]
    root: String,
    /// Whether systemd creates the cgroups.
    #[prost(bool, tag = "9")]
    systemd_cgroup: bool,
}

/// Returns the OCI runtime's state directory for a container, as configured when the container was created.
pub(crate) fn runtime_root(record: &Container) -> String {
    let options = record.runtime.as_ref().and_then(|runtime| runtime.options.as_ref());
    options.and_then(|options| RuncOptions::decode(&*options.value).ok()).map(|it| it.root).unwrap_or_default()
}

/// Escapes a path for a URL.
fn escape(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
    path.to_string_lossy().bytes().fold(String::new(), |mut escaped, byte| {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
        escaped
    })
}
