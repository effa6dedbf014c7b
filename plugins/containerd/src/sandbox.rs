//! Sandboxes: namespaces, network, and a record in containerd that describes them.

use std::{collections::HashMap, net::IpAddr, path::PathBuf, time::Duration};

use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest,
};
use futures_util::future::join_all;
use prost_types::{Any, FieldMask};
use stanchion_network::namespaces::{Namespaces, Own};
use stanchion_sdk::{
    cgroup::{Driver, Parent},
    runtime::{
        ContainerId, Error, ErrorKind, IpcMode, NetworkMode, PidMode, Result, SandboxConfig, SandboxId, SandboxInfo,
        SandboxState, Sysctl,
    },
};

use crate::{
    Containerd,
    changes::finish,
    client::{failed, is_gone},
    container::SPEC_URL,
    inventory::{RUNNING, Task, timestamp},
    names, spec,
};

impl Containerd {
    pub(crate) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.parent(&config.cgroup)
            .map_err(|error| error.context(format!("creating the sandbox of pod {}", config.name)))?;
        let parts = ["sandbox", &config.uid, self.realm];
        let parts = if self.realm.is_empty() { &parts[..2] } else { &parts[..] };
        let id = names::id(&config.name, parts, config.attempt);
        let turn = self.changes.turn(&id).await;
        let backend = self.clone();
        finish(turn, async move { backend.make_sandbox_now(id, config).await }).await
    }

    /// Creates the record first: all that follows can be found and removed through it.
    async fn make_sandbox_now(&self, id: String, config: SandboxConfig) -> Result<SandboxInfo> {
        let record = self.sandbox_record(&id, &config)?;
        let create = CreateContainerRequest { container: Some(record.clone()) };
        let created = self.client.containers().create(self.client.request(create)).await;
        let created = created.map_err(|status| failed(format!("creating sandbox {id}"), &status))?.into_inner();
        let made = match self.connect(&record, &config).await {
            Ok(addresses) => {
                let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                let done = [(names::ADDRESSES, shown.join(",")), (names::READY, "true".to_owned())];
                self.label(&id, &done).await.map(|()| addresses)
            }
            Err(error) => Err(error),
        };
        let sandbox = SandboxId(id);
        match made {
            Ok(addresses) => Ok(SandboxInfo {
                id: sandbox,
                state: SandboxState::Ready,
                addresses,
                created_at: created.container.and_then(|it| it.created_at).as_ref().map(timestamp).unwrap_or_default(),
                attempt: config.attempt,
                labels: config.labels,
            }),
            Err(error) => {
                if let Err(left) = self.erase_sandbox_now(&sandbox).await {
                    tracing::warn!(%sandbox, error = left.chain(), "a half made sandbox is left to be removed");
                }
                Err(error)
            }
        }
    }

    fn sandbox_record(&self, id: &str, config: &SandboxConfig) -> Result<Container> {
        let network = match config.network {
            NetworkMode::Pod => "pod",
            NetworkMode::Host => "host",
        };
        let pid = match config.pid {
            PidMode::Container => "container",
            PidMode::Pod => "pod",
            PidMode::Host => "host",
        };
        let spec = match config.pid {
            PidMode::Pod => self.pause_spec(id, config)?,
            PidMode::Container | PidMode::Host => {
                Any { type_url: "stanchion.dev/sandbox".to_owned(), value: b"{}".to_vec() }
            }
        };
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        labels.extend(
            [
                (names::KIND, "sandbox".to_owned()),
                (names::ATTEMPT, config.attempt.to_string()),
                (names::NETWORK, network.to_owned()),
                (names::IPC, if config.ipc == IpcMode::Host { "host" } else { "pod" }.to_owned()),
                (names::PID, pid.to_owned()),
                (names::CGROUP, config.cgroup.clone()),
                (names::HOSTNAME, config.hostname.clone()),
            ]
            .map(|(label, value)| (label.to_owned(), value)),
        );
        labels.extend(config.user_namespace.map(|range| (names::USERS.to_owned(), names::note_users(range))));
        Ok(Container {
            id: id.to_owned(),
            labels,
            runtime: Some(self.record_runtime()),
            spec: Some(spec),
            ..Container::default()
        })
    }

    fn pause_spec(&self, id: &str, config: &SandboxConfig) -> Result<Any> {
        let cgroup = self.parent(&config.cgroup)?.container(id).0;
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::new(ErrorKind::Other, format!("configuring the first process of sandbox {id}")).caused_by(error)
        };
        let spec = spec::pause::spec(&self.namespaces(id), own(config), &cgroup, id).map_err(|it| failed(&it))?;
        let value = serde_json::to_vec(&spec).map_err(|error| failed(&error))?;
        Ok(Any { type_url: SPEC_URL.to_owned(), value })
    }

    /// Makes the cgroup, makes and pins the namespaces, and connects the network.
    async fn connect(&self, record: &Container, config: &SandboxConfig) -> Result<Vec<IpAddr>> {
        let (id, wanted) = (record.id.clone(), config.clone());
        let addresses = self.blocking(move |backend| backend.connect_now(&id, &wanted)).await?;
        if config.pid == PidMode::Pod {
            self.start_pause(record).await?;
        }
        Ok(addresses)
    }

    fn connect_now(&self, id: &str, config: &SandboxConfig) -> Result<Vec<IpAddr>> {
        let (namespaces, own) = (self.namespaces(id), own(config));
        self.parent(&config.cgroup)?.make(&config.resources)?;
        let program = match own.users {
            Some(_) => self.pause_files()?.join(spec::pause::PROGRAM),
            None => PathBuf::new(),
        };
        // The record is new, so anything under its name is a leftover: containerd's data was lost, and ours not.
        let pinned = namespaces.unpin().and_then(|()| namespaces.pin(own, &config.hostname, &program));
        pinned.map_err(|error| {
            Error::new(ErrorKind::Other, format!("making the namespaces of sandbox {id}")).caused_by(&error)
        })?;
        let addresses = match own.network {
            true => self.network.attach(id, &namespaces.path("net"), config)?,
            false => Vec::new(),
        };
        if !config.sysctls.is_empty() {
            // Some exist only with the network.
            namespaces.set(own, &sysctls(&config.sysctls)?).map_err(|error| {
                Error::new(ErrorKind::Invalid, format!("setting the sysctls of sandbox {id}")).caused_by(&error)
            })?;
        }
        Ok(addresses)
    }

    /// Kills the processes of a sandbox and releases its network.
    pub(crate) async fn halt_sandbox(&self, id: &SandboxId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move {
            let Some(record) = backend.record(id.as_str()).await? else { return Ok(()) };
            let members = backend.members(&id).await?;
            let halted = members.iter().map(|container| backend.halt_container(container, Duration::ZERO));
            join_all(halted).await.into_iter().collect::<Result<()>>()?;
            if has_pause(&record) {
                backend.halt_container(&ContainerId(id.0.clone()), Duration::ZERO).await?;
            }
            backend.disconnect(&id).await
        })
        .await
    }

    /// Removes a sandbox and all that it has.
    pub(crate) async fn erase_sandbox(&self, id: &SandboxId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.erase_sandbox_now(&id).await }).await
    }

    /// Removes everything that is found through the record, then the record.
    async fn erase_sandbox_now(&self, id: &SandboxId) -> Result<()> {
        let Some(record) = self.record(id.as_str()).await? else { return Ok(()) };
        let members = self.members(id).await?;
        let ends = members.iter().map(|container| self.halt_container(container, Duration::ZERO));
        join_all(ends).await.into_iter().collect::<Result<()>>()?;
        // One by one: the shared shim ends with the last of them, whoever else still talks to it.
        for container in &members {
            self.erase_container(container).await?;
        }
        let parent = self.parent(record.labels.get(names::CGROUP).map(String::as_str).unwrap_or_default())?;
        if has_pause(&record) {
            self.erase_pause(&record, &parent).await?;
        }
        self.disconnect(id).await?;
        let has_cgroup = record.labels.get(names::CGROUP).is_some_and(|cgroup| !cgroup.is_empty());
        let name = id.0.clone();
        self.blocking(move |backend| {
            backend.network.unlink(&name);
            if has_cgroup { parent.remove() } else { Ok(()) }
        })
        .await?;
        self.delete_record(id.as_str()).await
    }

    /// Releases addresses, ports and namespaces of a sandbox.
    async fn disconnect(&self, id: &SandboxId) -> Result<()> {
        let name = id.0.clone();
        self.blocking(move |backend| {
            let namespaces = backend.namespaces(&name);
            backend.network.detach(&name, &namespaces.path("net"))?;
            namespaces.unpin().map_err(|error| {
                Error::new(ErrorKind::Other, format!("releasing the namespaces of sandbox {name}")).caused_by(&error)
            })
        })
        .await
    }

    /// Returns why containers cannot run in a sandbox; `None` if they can.
    pub(crate) fn sandbox_fault(&self, record: &Container, pause: Option<&Task>) -> Option<&'static str> {
        let is = |label: &str, value: &str| record.labels.get(label).is_some_and(|it| it == value);
        let own = names::noted_own(|label| record.labels.get(label));
        match () {
            () if !is(names::KIND, "sandbox") => Some("it is no sandbox"),
            () if !is(names::READY, "true") => Some("it was not made to the end"),
            () if has_pause(record) && pause.is_none_or(|task| task.status != RUNNING) => {
                Some("its first process has ended: it was stopped, the node was restarted, or somebody killed it")
            }
            () if !self.namespaces(&record.id).are_pinned(own, has_pause(record)) => {
                Some("its namespaces are gone: it was stopped, the node was restarted, or somebody unmounted them")
            }
            () => None,
        }
    }

    /// Returns a pod's cgroup, by its name below Stanchion's root.
    pub(crate) fn parent(&self, pod: &str) -> Result<Parent> {
        let driver = if self.config.systemd_cgroup { Driver::Systemd } else { Driver::Files };
        Parent::of(driver, &self.config.cgroup_root, pod)
    }

    pub(crate) fn namespaces(&self, sandbox: &str) -> Namespaces {
        Namespaces::at(self.run_dir.join("ns").join(sandbox))
    }

    /// Returns a record of Stanchion's own.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<Container>> {
        let request = GetContainerRequest { id: id.to_owned() };
        match self.client.containers().get(self.client.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().container.filter(|it| it.labels.contains_key(names::KIND))),
            Err(status) if is_gone(&status) => Ok(None),
            Err(status) => Err(failed(format!("looking up {id}"), &status)),
        }
    }

    /// Lists the container records that match `filters`; without filters, all of the namespace.
    pub(crate) async fn records(&self, filters: Vec<String>) -> Result<Vec<Container>> {
        let request = self.client.request(ListContainersRequest { filters });
        let records = self.client.containers().list(request).await;
        records.map(|it| it.into_inner().containers).map_err(|status| failed("listing the containers", &status))
    }

    pub(crate) async fn delete_record(&self, id: &str) -> Result<()> {
        let request = DeleteContainerRequest { id: id.to_owned() };
        match self.client.containers().delete(self.client.request(request)).await {
            Err(status) if !is_gone(&status) => Err(failed(format!("removing the record of {id}"), &status)),
            _ => Ok(()),
        }
    }

    /// Adds labels to a record.
    pub(crate) async fn label(&self, id: &str, labels: &[(&str, String)]) -> Result<()> {
        let paths = labels.iter().map(|(label, _)| format!("labels.{label}")).collect();
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), value.clone())).collect();
        let container = Container { id: id.to_owned(), labels, ..Container::default() };
        let update = UpdateContainerRequest { container: Some(container), update_mask: Some(FieldMask { paths }) };
        let updated = self.client.containers().update(self.client.request(update)).await;
        updated.map(drop).map_err(|status| failed(format!("labelling {id}"), &status))
    }
}

fn own(config: &SandboxConfig) -> Own {
    Own { network: config.network == NetworkMode::Pod, ipc: config.ipc == IpcMode::Pod, users: config.user_namespace }
}

/// Returns whether a sandbox has a pause process.
pub(crate) fn has_pause(record: &Container) -> bool {
    record.labels.get(names::PID).is_some_and(|pid| pid == "pod")
}

/// Returns the files of sysctls below `/proc/sys`, and their values.
fn sysctls(sysctls: &[Sysctl]) -> Result<Vec<(String, String)>> {
    let path = |it: &Sysctl| {
        let unknown =
            || Error::new(ErrorKind::Invalid, format!("sysctl {:?} is no name of a kernel parameter", it.name));
        Ok((it.path().ok_or_else(unknown)?, it.value.clone()))
    };
    sysctls.iter().map(path).collect()
}
