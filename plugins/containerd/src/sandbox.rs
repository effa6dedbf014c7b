//! Sandboxes: namespaces, network, and a record in containerd that says what they are.

use std::{collections::HashMap, net::IpAddr, path::Path, time::Duration};

use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest,
};
use futures_util::future::join_all;
use prost_types::{Any, FieldMask};
use stanchion_sdk::runtime::{
    Error, ErrorKind, NetworkMode, Result, SandboxConfig, SandboxId, SandboxInfo, SandboxState,
};

use crate::{
    Containerd,
    cgroup::{Cgroup, is_plain},
    changes::finish,
    client::{failed, is_gone},
    inventory::timestamp,
    names,
    namespaces::Namespaces,
};

impl Containerd {
    pub(crate) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        let cgroup = Path::new(&config.cgroup);
        if cgroup.is_absolute() || !is_plain(cgroup) {
            let message =
                format!("cgroup {:?} of pod {}: expected a path that only goes down", config.cgroup, config.name);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let parts = ["sandbox", &config.uid, self.realm];
        let parts = if self.realm.is_empty() { &parts[..2] } else { &parts[..] };
        let id = names::id(&config.name, parts, config.attempt);
        let turn = self.changes.turn(&id).await;
        let backend = self.clone();
        finish(turn, async move { backend.make_sandbox_now(id, config).await }).await
    }

    /// The record first: whatever is made after it can be found and removed through it.
    async fn make_sandbox_now(&self, id: String, config: SandboxConfig) -> Result<SandboxInfo> {
        let create = CreateContainerRequest { container: Some(self.sandbox_record(&id, &config)) };
        let created = self.client.containers().create(self.client.request(create)).await;
        let created = created.map_err(|status| failed(format!("creating sandbox {id}"), &status))?.into_inner();
        let made = match self.connect(&id, &config).await {
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

    fn sandbox_record(&self, id: &str, config: &SandboxConfig) -> Container {
        let network = match config.network {
            NetworkMode::Pod => "pod",
            NetworkMode::Host => "host",
        };
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        labels.extend(
            [
                (names::KIND, "sandbox".to_owned()),
                (names::ATTEMPT, config.attempt.to_string()),
                (names::NETWORK, network.to_owned()),
                (names::CGROUP, config.cgroup.clone()),
                (names::HOSTNAME, config.hostname.clone()),
            ]
            .map(|(label, value)| (label.to_owned(), value)),
        );
        Container {
            id: id.to_owned(),
            labels,
            runtime: Some(self.record_runtime()),
            spec: Some(Any { type_url: "stanchion.dev/sandbox".to_owned(), value: b"{}".to_vec() }),
            ..Container::default()
        }
    }

    /// Makes and pins the namespaces, and connects the network.
    async fn connect(&self, id: &str, config: &SandboxConfig) -> Result<Vec<IpAddr>> {
        let (id, config) = (id.to_owned(), config.clone());
        self.blocking(move |backend| {
            let namespaces = backend.namespaces(&id);
            let hostname = (config.network == NetworkMode::Pod).then_some(config.hostname.as_str());
            // The record is new, so what is there under its name is nobody's: containerd's data was lost, and ours not.
            let pinned = namespaces.unpin().and_then(|()| namespaces.pin(hostname));
            pinned.map_err(|error| {
                Error::new(ErrorKind::Other, format!("making the namespaces of sandbox {id}")).caused_by(&error)
            })?;
            match hostname {
                Some(_) => backend.network.attach(&id, &namespaces.path("net"), &config),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    /// Kills what runs in a sandbox and releases its network.
    pub(crate) async fn halt_sandbox(&self, id: &SandboxId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move {
            if backend.record(id.as_str()).await?.is_none() {
                return Ok(());
            }
            let members = backend.members(&id).await?;
            let halted = members.iter().map(|container| backend.halt_container(container, Duration::ZERO));
            join_all(halted).await.into_iter().collect::<Result<()>>()?;
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

    /// Everything that is found through the record, then the record.
    async fn erase_sandbox_now(&self, id: &SandboxId) -> Result<()> {
        let Some(record) = self.record(id.as_str()).await? else { return Ok(()) };
        let members = self.members(id).await?;
        let ends = members.iter().map(|container| self.halt_container(container, Duration::ZERO));
        join_all(ends).await.into_iter().collect::<Result<()>>()?;
        // In turn: the shim that they share goes with the last of them, whoever else still talks to it.
        for container in &members {
            self.erase_container(container).await?;
        }
        self.disconnect(id).await?;
        let cgroup = record.labels.get(names::CGROUP).cloned().unwrap_or_default();
        let name = id.0.clone();
        self.blocking(move |backend| {
            backend.network.unlink(&name);
            if cgroup.is_empty() {
                return Ok(());
            }
            let path = format!("{}/{cgroup}", backend.config.cgroup_root);
            Cgroup::at(&path).remove().map_err(|error| {
                Error::new(ErrorKind::Other, format!("removing cgroup {path} of sandbox {name}")).caused_by(&error)
            })
        })
        .await?;
        self.delete_record(id.as_str()).await
    }

    /// Releases address, ports and namespaces.
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

    /// Why containers cannot run in a sandbox, if so.
    pub(crate) fn sandbox_fault(&self, record: &Container) -> Option<&'static str> {
        let is = |label: &str, value: &str| record.labels.get(label).is_some_and(|it| it == value);
        match () {
            () if !is(names::KIND, "sandbox") => Some("it is no sandbox"),
            () if !is(names::READY, "true") => Some("it was not made to the end"),
            () if !self.namespaces(&record.id).are_pinned(!is(names::NETWORK, "host")) => {
                Some("its namespaces are gone: it was stopped, the node was restarted, or somebody unmounted them")
            }
            () => None,
        }
    }

    pub(crate) fn namespaces(&self, sandbox: &str) -> Namespaces {
        Namespaces::at(self.run_dir.join("ns").join(sandbox))
    }

    /// A record of ours.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<Container>> {
        let request = GetContainerRequest { id: id.to_owned() };
        match self.client.containers().get(self.client.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().container.filter(|it| it.labels.contains_key(names::KIND))),
            Err(status) if is_gone(&status) => Ok(None),
            Err(status) => Err(failed(format!("looking up {id}"), &status)),
        }
    }

    /// Records of ours.
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
