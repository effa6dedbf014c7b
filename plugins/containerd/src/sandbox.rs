//! Sandboxes: namespaces, network, and a record in containerd that says what they are.

use std::{collections::HashMap, path::PathBuf};

use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, ListContainersRequest, UpdateContainerRequest,
    container::Runtime as RecordRuntime,
};
use prost_types::{Any, FieldMask};
use stanchion_sdk::runtime::{
    ContainerId, Error, ErrorKind, NetworkMode, Result, SandboxConfig, SandboxId, SandboxInfo, SandboxState,
};

use crate::{
    Containerd, cgroup,
    client::{failed, is_gone},
    names,
    namespaces::Namespaces,
};

impl Containerd {
    pub(crate) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        let id = names::id(&config.name, &["sandbox", &config.uid], config.attempt);
        let own_network = config.network == NetworkMode::Pod;
        let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
        labels.extend([
            (names::KIND.to_owned(), "sandbox".to_owned()),
            (names::ATTEMPT.to_owned(), config.attempt.to_string()),
            (names::NETWORK.to_owned(), if own_network { "pod" } else { "host" }.to_owned()),
            (names::CGROUP.to_owned(), config.cgroup.clone()),
            (names::HOSTNAME.to_owned(), config.hostname.clone()),
        ]);
        // The record first: whatever is made after it can be found and removed through it.
        let record = Container {
            id: id.clone(),
            labels: labels.clone(),
            runtime: Some(RecordRuntime { name: self.config.runtime.clone(), options: None }),
            spec: Some(Any { type_url: "stanchion.dev/sandbox".to_owned(), value: b"{}".to_vec() }),
            ..Container::default()
        };
        let create = CreateContainerRequest { container: Some(record) };
        let created = self.client.containers().create(self.client.request(create)).await;
        let created = created.map_err(|status| failed(format!("creating sandbox {id}"), &status))?.into_inner();

        let (name, ports) = (id.clone(), config.port_mappings.clone());
        let hostname = own_network.then(|| config.hostname.clone());
        let addresses = self
            .blocking(move |backend| {
                let namespaces = backend.namespaces(&name);
                namespaces.pin(hostname.as_deref()).map_err(|error| {
                    Error::new(ErrorKind::Other, format!("making the namespaces of sandbox {name}")).caused_by(&error)
                })?;
                match hostname {
                    Some(_) => backend.network.attach(&name, &namespaces.path("net"), &ports),
                    None => Ok(Vec::new()),
                }
            })
            .await;
        let addresses = match addresses {
            Ok(addresses) => addresses,
            Err(error) => {
                if let Err(left) = self.erase_sandbox(&SandboxId(id.clone())).await {
                    tracing::warn!(sandbox = id, error = left.chain(), "a half made sandbox is left to be removed");
                }
                return Err(error);
            }
        };
        let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        let done = [(names::ADDRESSES, shown.join(",")), (names::READY, "true".to_owned())];
        self.label(&id, &done).await?;
        let created_at = created.container.and_then(|it| it.created_at).map(|at| timestamp(&at));
        Ok(SandboxInfo {
            id: SandboxId(id),
            state: SandboxState::Ready,
            addresses,
            created_at: created_at.unwrap_or_default(),
            attempt: config.attempt,
            labels: config.labels,
        })
    }

    /// Kills what runs in a sandbox and releases its network.
    pub(crate) async fn halt_sandbox(&self, id: &SandboxId) -> Result<()> {
        for container in self.members(id).await? {
            self.halt_container(&container, std::time::Duration::ZERO).await?;
        }
        let name = id.0.clone();
        self.blocking(move |backend| {
            backend.network.detach(&name)?;
            let unpinned = backend.namespaces(&name).unpin();
            unpinned.map_err(|error| {
                Error::new(ErrorKind::Other, format!("releasing the namespaces of sandbox {name}")).caused_by(&error)
            })
        })
        .await
    }

    /// Removes a sandbox and all that it has; its record last.
    pub(crate) async fn erase_sandbox(&self, id: &SandboxId) -> Result<()> {
        let Some(record) = self.record(&id.0).await? else { return Ok(()) };
        for container in self.members(id).await? {
            self.erase_container(&container).await?;
        }
        self.halt_sandbox(id).await?;
        let (name, cgroup) = (id.0.clone(), record.labels.get(names::CGROUP).cloned().unwrap_or_default());
        self.blocking(move |backend| {
            backend.network.unlink(&name);
            let path = format!("{}/{cgroup}", backend.config.cgroup_root);
            let removed = if cgroup.is_empty() { Ok(()) } else { cgroup::remove(&path) };
            removed.map_err(|error| Error::new(ErrorKind::Other, format!("removing cgroup {path}")).caused_by(&error))
        })
        .await?;
        self.delete_record(&id.0).await
    }

    /// The containers in a sandbox.
    async fn members(&self, id: &SandboxId) -> Result<Vec<ContainerId>> {
        let filters = vec![format!("labels.\"{}\"=={id}", names::SANDBOX)];
        let request = self.client.request(ListContainersRequest { filters });
        let listed = self.client.containers().list(request).await;
        let listed = listed.map_err(|status| failed(format!("listing the containers of sandbox {id}"), &status))?;
        Ok(listed.into_inner().containers.into_iter().map(|container| ContainerId(container.id)).collect())
    }

    pub(crate) fn namespaces(&self, sandbox: &str) -> Namespaces {
        Namespaces::at(self.namespaces_dir().join(sandbox))
    }

    fn namespaces_dir(&self) -> PathBuf {
        self.run_dir.join("ns")
    }

    /// A record of ours.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<Container>> {
        let request = containerd_client::services::v1::GetContainerRequest { id: id.to_owned() };
        match self.client.containers().get(self.client.request(request)).await {
            Ok(answer) => Ok(answer.into_inner().container),
            Err(status) if is_gone(&status) => Ok(None),
            Err(status) => Err(failed(format!("looking up {id}"), &status)),
        }
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

/// A protobuf timestamp.
pub(crate) fn timestamp(at: &prost_types::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::new(at.seconds, at.nanos).unwrap_or_default()
}
