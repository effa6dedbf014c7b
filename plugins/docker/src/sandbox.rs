//! Sandboxes: a container whose one process holds the namespaces that the pod's containers join.

use std::{collections::HashMap, time::Duration};

use bollard::{
    errors::Error as ApiError,
    models::{
        ContainerCreateBody, ContainerInspectResponse, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy,
        RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptions, ListContainersOptions, StartContainerOptions},
};
use futures_util::future::join_all;
use stanchion_sdk::{
    blocking,
    cgroup::Parent,
    changes::finish,
    runtime::{
        ContainerId, Error, ErrorKind, IpcMode, NetworkMode, PidMode, PortMapping, Protocol, Result, SandboxConfig,
        SandboxId, SandboxInfo, SandboxState, Sysctl, labels,
    },
};

use crate::{
    Docker,
    client::{failed, is_gone, said},
    names, orphan, pause,
    process::pod_cgroup,
};

impl Docker {
    pub(crate) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        if config.user_namespace.is_some() {
            // Docker has one range of users for all of its containers, or none.
            return Err(Error::unsupported(format!(
                "creating the sandbox of pod {} with users of its own",
                config.name
            )));
        }
        let parent = Parent::of(self.ready().await?.driver, &self.config.cgroup_root, &config.cgroup)
            .map_err(|error| error.context(format!("creating the sandbox of pod {}", config.name)))?;
        let name = format!("stanchion-{}", names::id(&config.name, &["sandbox", &config.uid], config.attempt));
        let turn = self.changes.turn(&name).await;
        let backend = self.clone();
        finish(turn, async move { backend.make_sandbox_now(&name, config, parent).await }).await
    }

    /// Creates the container first: Docker refuses a second one of its name, and what a crash leaves can be found by
    /// it.
    async fn make_sandbox_now(&self, name: &str, config: SandboxConfig, parent: Parent) -> Result<SandboxInfo> {
        let tried = || format!("creating sandbox {name}");
        let body = self.sandbox_body(&config, &parent).map_err(|error| error.context(tried()))?;
        let id = self.create(name, body.clone()).await;
        let id = match id {
            Err(error) if is_gone(&error) => {
                // The image was never made, or somebody has removed it.
                self.pause.provide(&self.client).await?;
                self.create(name, body).await
            }
            created => created,
        };
        let id = id.map_err(|error| created_twice(tried(), &error))?;
        // A removal by somebody who has found it by now waits, or is done: Docker must not start and remove it at once.
        let _turn = self.changes.turn(&id).await;
        let started = self.client.api().start_container(&id, None::<StartContainerOptions>).await;
        let made = match started {
            // systemd has its slice only now.
            Ok(()) => match blocking(move || parent.make(&config.resources)).await {
                Ok(()) => self.sandbox_info(&id).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(self.start_error(tried(), &error, &config.port_mappings).await),
        };
        match made {
            Ok(Some(SandboxInfo { state: SandboxState::NotReady { reason }, .. })) => {
                let error = Error::new(ErrorKind::Other, tried()).because(reason);
                Err(self.undo(&SandboxId(id), error).await)
            }
            Ok(Some(info)) => Ok(info),
            Ok(None) => Err(Error::new(ErrorKind::Other, tried()).because("somebody removed it at once")),
            Err(error) => Err(self.undo(&SandboxId(id), error).await),
        }
    }

    async fn start_error(&self, tried: String, error: &ApiError, ports: &[PortMapping]) -> Error {
        let text = said(error);
        if !text.contains("port is already allocated") && !text.contains("address already in use") {
            return failed(tried, error);
        }
        let wrapped = Error::new(ErrorKind::Conflict, tried).because(text);
        // In Docker's message the port ends an address: `Bind for 0.0.0.0:80 failed`.
        let taken = ports.iter().find(|port| text.contains(&format!(":{} ", port.host_port)));
        let Some(port) = taken.map(|port| port.host_port) else { return wrapped };
        let holder = match self.publisher(port).await {
            Some(holder) => format!("port {port} of the node is {holder}'s"),
            None => format!("another program has port {port} of the node"),
        };
        wrapped.because(holder)
    }

    /// Returns which container or pod, ours or not, has a port of the node.
    async fn publisher(&self, port: u16) -> Option<String> {
        let filters = HashMap::from([("publish".to_owned(), vec![port.to_string()])]);
        let options = ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
        let listed = self.client.api().list_containers(Some(options)).await.ok()?;
        let holder = listed.into_iter().next()?;
        match holder.labels.and_then(|mut labels| labels.remove(labels::POD_NAME)) {
            Some(pod) => Some(format!("pod {pod}")),
            None => Some(format!("container {}", holder.names?.first()?.trim_start_matches('/'))),
        }
    }

    async fn undo(&self, sandbox: &SandboxId, error: Error) -> Error {
        if let Err(left) = self.erase_sandbox_now(sandbox).await {
            tracing::warn!(%sandbox, error = left.chain(), "a half made sandbox is left to be removed");
        }
        error
    }

    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> std::result::Result<String, ApiError> {
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let created = self.client.api().create_container(Some(options), body).await?;
        for warning in created.warnings {
            tracing::debug!(container = name, warning, "Docker warns");
        }
        Ok(created.id)
    }

    fn sandbox_body(&self, config: &SandboxConfig, parent: &Parent) -> Result<ContainerCreateBody> {
        let network = match config.network {
            NetworkMode::Pod => self.config.network.clone(),
            NetworkMode::Host => "host".to_owned(),
        };
        let pid = match config.pid {
            PidMode::Container => "container",
            PidMode::Pod => "pod",
            PidMode::Host => "host",
        };
        let (exposed, bindings) = ports(&config.port_mappings);
        let host = HostConfig {
            network_mode: Some(network),
            ipc_mode: Some(if config.ipc == IpcMode::Host { "host" } else { "shareable" }.to_owned()),
            sysctls: Some(sysctls(&config.sysctls)?),
            port_bindings: Some(bindings),
            cgroup_parent: Some(parent.name.clone()),
            // The pause process does nothing, and needs nothing for it.
            cap_drop: Some(vec!["ALL".to_owned()]),
            readonly_rootfs: Some(true),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..host_config()
        };
        let ours = [
            (names::KIND, "sandbox".to_owned()),
            (names::OWNER, self.config.namespace.clone()),
            (names::ATTEMPT, config.attempt.to_string()),
            (names::CGROUP, parent.path.clone()),
            (names::PID, pid.to_owned()),
        ];
        Ok(ContainerCreateBody {
            image: Some(pause::image().to_owned()),
            entrypoint: Some(vec![pause::PATH.to_owned()]),
            hostname: Some(config.hostname.clone()).filter(|name| !name.is_empty()),
            exposed_ports: Some(exposed),
            labels: Some(names::labels(&config.labels, ours)),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        })
    }

    /// Kills the processes of a sandbox and releases its network.
    pub(crate) async fn halt_sandbox(&self, id: &SandboxId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.halt_sandbox_now(&id).await }).await
    }

    async fn halt_sandbox_now(&self, id: &SandboxId) -> Result<()> {
        let members = self.members(id).await?;
        let members: Vec<_> = members.into_iter().map(|member| ContainerId(member.id)).collect();
        let halted = members.iter().map(|member| self.halt_container(member, Duration::ZERO));
        join_all(halted).await.into_iter().collect::<Result<()>>()?;
        let Some(record) = self.sandbox_record(id).await? else { return Ok(()) };
        self.end_process(id.as_str()).await?;
        match pod_cgroup(&record) {
            Some(pod) => self.end_orphan(id.as_str(), pod, orphan::is_unstarted(&record)).await,
            None => Ok(()),
        }
    }

    /// Removes a sandbox and all that it has.
    pub(crate) async fn erase_sandbox(&self, id: &SandboxId) -> Result<()> {
        let turn = self.changes.turn(id.as_str()).await;
        let (backend, id) = (self.clone(), id.clone());
        finish(turn, async move { backend.erase_sandbox_now(&id).await }).await
    }

    /// Removes everything that is found through the sandbox, then its own container. Without that, its containers'
    /// labels tell.
    async fn erase_sandbox_now(&self, id: &SandboxId) -> Result<()> {
        let members = self.members(id).await?;
        let record = self.sandbox_record(id).await?;
        let labels = record.as_ref().and_then(|record| record.config.as_ref()?.labels.as_ref());
        let labels = labels.or_else(|| members.first().map(|member| &member.labels));
        let cgroup = labels.and_then(|labels| labels.get(names::CGROUP)).cloned();
        // In turn with a start that may be under way.
        let members: Vec<_> = members.into_iter().map(|member| ContainerId(member.id)).collect();
        let erased = members.iter().map(|member| self.erase_container(member));
        join_all(erased).await.into_iter().collect::<Result<()>>()?;
        if record.is_some() {
            self.end_process(id.as_str()).await?;
        }
        if let Some(path) = cgroup {
            let may_have_shim = record.as_ref().is_some_and(orphan::is_unstarted);
            self.end_orphan(id.as_str(), &path, may_have_shim).await?;
            self.end_orphans(&path).await?;
            let parent = Parent::at(self.ready().await?.driver, &self.config.cgroup_root, &path);
            blocking(move || parent.remove()).await?;
        }
        match record {
            Some(_) => self.erase(id.as_str()).await,
            None => Ok(()),
        }
    }

    /// Returns the sandbox's own container.
    pub(crate) async fn sandbox_record(&self, id: &SandboxId) -> Result<Option<ContainerInspectResponse>> {
        let found = self.client.find(id.as_str()).await?;
        let is_sandbox = |found: &ContainerInspectResponse| {
            let kind = found.config.as_ref().and_then(|config| config.labels.as_ref()?.get(names::KIND));
            kind.is_some_and(|kind| kind == "sandbox")
        };
        Ok(found.filter(is_sandbox))
    }
}

/// Returns sysctls by Docker's names for them, which have dots.
fn sysctls(sysctls: &[Sysctl]) -> Result<HashMap<String, String>> {
    let named = |it: &Sysctl| {
        let unknown =
            || Error::new(ErrorKind::Invalid, format!("sysctl {:?} is no name of a kernel parameter", it.name));
        Ok((it.path().ok_or_else(unknown)?.replace('/', "."), it.value.clone()))
    };
    sysctls.iter().map(named).collect()
}

/// Returns the settings that every container of ours has.
pub(crate) fn host_config() -> HostConfig {
    HostConfig {
        // The agent restarts containers.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    }
}

fn ports(mappings: &[PortMapping]) -> (Vec<String>, HashMap<String, Option<Vec<PortBinding>>>) {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for mapping in mappings {
        let protocol = match mapping.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let binding = PortBinding {
            host_ip: mapping.host_ip.map(|address| address.to_string()),
            host_port: Some(mapping.host_port.to_string()),
        };
        let port = format!("{}/{protocol}", mapping.container_port);
        bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    let mut exposed: Vec<_> = bindings.keys().cloned().collect();
    exposed.sort();
    (exposed, bindings)
}

/// Converts the error of a creation: a name that is taken means an identity that exists.
pub(crate) fn created_twice(tried: String, error: &ApiError) -> Error {
    let wrapped = failed(tried.clone(), error);
    match wrapped.kind() {
        ErrorKind::Conflict if said(error).contains("already in use by container") => {
            Error::new(ErrorKind::AlreadyExists, tried).because(said(error))
        }
        _ => wrapped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_of_a_pod_may_have_several_of_the_node() {
        let mapping = |host_port, protocol| PortMapping { protocol, host_port, container_port: 53, host_ip: None };
        let mut addressed = mapping(5353, Protocol::Udp);
        addressed.host_ip = "127.0.0.1".parse().ok();
        let (exposed, bindings) = ports(&[mapping(53, Protocol::Udp), addressed, mapping(53, Protocol::Tcp)]);
        assert_eq!(exposed, ["53/tcp", "53/udp"]);
        let udp = bindings["53/udp"].as_deref().expect("bound");
        let shown: Vec<_> = udp.iter().map(|it| (it.host_ip.as_deref(), it.host_port.as_deref())).collect();
        assert_eq!(shown, [(None, Some("53")), (Some("127.0.0.1"), Some("5353"))]);
    }

    #[test]
    fn only_a_taken_name_is_an_identity_that_exists() {
        let error =
            |message: &str| ApiError::DockerResponseServerError { status_code: 409, message: message.to_owned() };
        let taken = r#"Conflict. The container name "/a" is already in use by container "1"."#;
        assert_eq!(created_twice(String::new(), &error(taken)).kind(), ErrorKind::AlreadyExists);
        let other = "cannot join network of a non running container: 1";
        assert_eq!(created_twice(String::new(), &error(other)).kind(), ErrorKind::Conflict);
    }
}
