//! State of the fake, and every change to it. No I/O, no clock, no waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use jiff::Timestamp;
use tokio::task::AbortHandle;

use super::{events::Events, exec::Answers, images::Images, program::Program, program::TermAction, shell};
use crate::{
    ContainerConfig, ContainerId, ContainerInfo, ContainerState, Error, ErrorKind, EventKind, ExecId, Health,
    Inventory, NetworkMode, Profile, Result, SandboxConfig, SandboxId, SandboxInfo, SandboxState, TerminalSize, labels,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<SandboxId, Sandbox>,
    pub(super) containers: BTreeMap<ContainerId, Container>,
    pub(super) images: Images,
    pub(super) events: Events,
    pub(super) programs: BTreeMap<String, Program>,
    pub(super) execs: BTreeMap<ExecId, Option<TerminalSize>>,
    pub(super) answers: Answers,
    /// The runtime cannot be reached.
    pub(super) outage: bool,
    /// Answer of `health`.
    pub(super) health: Health,
    /// The fake writes output to `log_path`.
    pub(super) log_files: bool,
    /// The fake does not support image mounts.
    pub(super) no_image_mounts: bool,
    /// The fake does not support user namespaces.
    pub(super) no_user_namespaces: bool,
    /// Number of sandboxes and containers made so far; part of the next id.
    made: u16,
}

pub(super) struct Sandbox {
    pub(super) config: SandboxConfig,
    pub(super) info: SandboxInfo,
}

impl Sandbox {
    pub(super) fn pod(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }
}

pub(super) struct Container {
    pub(super) config: ContainerConfig,
    /// UID of the pod.
    pub(super) uid: String,
    pub(super) info: ContainerInfo,
    pub(super) on_term: TermAction,
    /// Files that the container has written outside its mounts.
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
    /// Output as CRI log lines.
    pub(super) output: Vec<u8>,
    /// Task that plays its program.
    pub(super) task: Option<AbortHandle>,
}

impl Container {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.info.state, ContainerState::Running { .. })
    }
}

/// Behaviour of a started container.
pub(super) enum Launch {
    Program(Program),
    Command(Vec<String>),
}

impl State {
    pub(super) fn inventory(&self) -> Inventory {
        Inventory {
            sandboxes: self.sandboxes.values().map(|sandbox| sandbox.info.clone()).collect(),
            containers: self.containers.values().map(|container| container.info.clone()).collect(),
        }
    }

    pub(super) fn create_sandbox(&mut self, config: SandboxConfig, now: Timestamp) -> Result<SandboxInfo> {
        let SandboxConfig { name, namespace, uid, attempt, .. } = &config;
        let what = format!("create sandbox of pod {namespace}/{name} (uid {uid}, attempt {attempt})");
        if name.is_empty() || namespace.is_empty() || uid.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, format!("{what}: name, namespace and uid must be given")));
        }
        if config.user_namespace.is_some() && self.no_user_namespaces {
            return Err(Error::unsupported(format!("{what} with users of its own")));
        }
        for other in self.sandboxes.values() {
            if other.config.uid == *uid && other.config.attempt == *attempt {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("{what}: it is {}", other.info.id)));
            }
            if other.info.state == SandboxState::Ready
                && let Some(port) = shared_port(&config, &other.config)
            {
                let why = format!("{what}: host port {port} belongs to {}", other.pod());
                return Err(Error::new(ErrorKind::Conflict, why));
            }
        }
        self.made += 1;
        let [high, low] = self.made.to_be_bytes();
        let id = SandboxId(format!("sandbox-{}", self.made));
        let addresses = match config.network {
            NetworkMode::Pod => vec![IpAddr::V4(Ipv4Addr::new(10, 88, high, low))],
            NetworkMode::Host => Vec::new(),
        };
        let info = SandboxInfo {
            id: id.clone(),
            state: SandboxState::Ready,
            addresses,
            created_at: now,
            attempt: config.attempt,
            labels: config.labels.clone(),
        };
        self.sandboxes.insert(id.clone(), Sandbox { config, info: info.clone() });
        self.events.send(EventKind::SandboxChanged { sandbox: id });
        Ok(info)
    }

    pub(super) fn stop_sandbox(&mut self, id: &SandboxId, reason: &str, now: Timestamp) {
        for container in self.containers_of(id) {
            self.end(&container, Some(137), false, now);
        }
        self.lose_sandbox(id, reason);
    }

    pub(super) fn lose_sandbox(&mut self, id: &SandboxId, reason: &str) {
        if let Some(sandbox) = self.sandboxes.get_mut(id)
            && sandbox.info.state == SandboxState::Ready
        {
            sandbox.info.state = SandboxState::NotReady { reason: reason.to_owned() };
            sandbox.info.addresses.clear();
            self.events.send(EventKind::SandboxChanged { sandbox: id.clone() });
        }
    }

    pub(super) fn remove_sandbox(&mut self, id: &SandboxId, now: Timestamp) {
        for container in self.containers_of(id) {
            self.remove_container(&container, now);
        }
        if self.sandboxes.remove(id).is_some() {
            self.events.send(EventKind::SandboxChanged { sandbox: id.clone() });
        }
    }

    pub(super) fn create_container(&mut self, config: ContainerConfig, now: Timestamp) -> Result<ContainerId> {
        let what = format!("create container {} (attempt {}) in {}", config.name, config.attempt, config.sandbox);
        let Some(sandbox) = self.sandboxes.get(&config.sandbox) else {
            return Err(Error::new(ErrorKind::NotFound, format!("{what}: there is no such sandbox")));
        };
        let uid = sandbox.config.uid.clone();
        if sandbox.info.state != SandboxState::Ready {
            return Err(Error::new(ErrorKind::Conflict, format!("{what}: the sandbox is not ready")));
        }
        let twin = self.containers.values().find(|other| {
            other.uid == uid && other.config.name == config.name && other.config.attempt == config.attempt
        });
        if let Some(twin) = twin {
            return Err(Error::new(ErrorKind::AlreadyExists, format!("{what}: it is {}", twin.info.id)));
        }
        let Some(image) = self.images.present.get(&config.image) else {
            let why = format!("{what}: image {} is not present; pull it first", config.image);
            return Err(Error::new(ErrorKind::NotFound, why));
        };
        for mount in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            if self.no_image_mounts {
                return Err(Error::unsupported(format!("{what}: mounting image {}", mount.reference)));
            }
            self.images.check(mount).map_err(|error| error.context(what.clone()))?;
        }
        if let Profile::Localhost { profile } = &config.security.seccomp
            && !std::path::Path::new(profile).is_file()
        {
            return Err(Error::new(ErrorKind::Invalid, format!("{what}: there is no seccomp profile {profile}")));
        }
        self.made += 1;
        let id = ContainerId(format!("{}-{}-{}", config.name, config.attempt, self.made));
        let info = ContainerInfo {
            id: id.clone(),
            sandbox: config.sandbox.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            image: config.image.clone(),
            image_digest: Some(image.digest.clone()),
            created_at: now,
            state: ContainerState::Created,
            labels: config.labels.clone(),
        };
        let container = Container {
            config,
            uid,
            info,
            on_term: TermAction::default(),
            files: BTreeMap::new(),
            output: Vec::new(),
            task: None,
        };
        self.containers.insert(id.clone(), container);
        Ok(id)
    }

    pub(super) fn start(&mut self, id: &ContainerId, now: Timestamp) -> Result<Option<Launch>> {
        let Some(container) = self.containers.get_mut(id) else {
            return Err(Error::new(ErrorKind::NotFound, format!("start container {id}: there is none")));
        };
        if container.info.state != ContainerState::Created {
            let why = format!("start container {id}: it was started before; a restart is a new container");
            return Err(Error::new(ErrorKind::Conflict, why));
        }
        let ready =
            self.sandboxes.get(&container.config.sandbox).is_some_and(|it| it.info.state == SandboxState::Ready);
        if !ready {
            let why = format!("start container {id}: its sandbox {} is not ready", container.config.sandbox);
            return Err(Error::new(ErrorKind::Conflict, why));
        }
        let command = shell::command_of(&container.config);
        if let Some(program) = command.first().filter(|program| shell::cannot_start(program)) {
            let why = format!("start container {id}: exec {program}: no such file or directory");
            container.info.state =
                ContainerState::Exited { code: Some(128), started_at: None, finished_at: Some(now), oom_killed: false };
            return Err(Error::new(ErrorKind::Invalid, why));
        }
        container.info.state = ContainerState::Running { started_at: Some(now) };
        let launch = match self.programs.get(&container.config.name) {
            Some(program) => {
                container.on_term = program.on_term;
                Some(Launch::Program(program.clone()))
            }
            None if command.is_empty() => None,
            None => Some(Launch::Command(command)),
        };
        self.events.send(EventKind::Started { container: id.clone() });
        Ok(launch)
    }

    /// Ends a container if it runs.
    pub(super) fn end(&mut self, id: &ContainerId, code: Option<i32>, oom_killed: bool, now: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let ContainerState::Running { started_at } = container.info.state else { return };
        container.info.state = ContainerState::Exited { code, started_at, finished_at: Some(now), oom_killed };
        if let Some(task) = container.task.take() {
            task.abort();
        }
        if oom_killed {
            self.events.send(EventKind::OutOfMemory { container: id.clone() });
        }
        self.events.send(EventKind::Exited { container: id.clone() });
    }

    pub(super) fn remove_container(&mut self, id: &ContainerId, now: Timestamp) {
        self.end(id, Some(137), false, now);
        self.containers.remove(id);
    }

    pub(super) fn is_running(&self, id: &ContainerId) -> bool {
        self.containers.get(id).is_some_and(Container::is_running)
    }

    fn containers_of(&self, sandbox: &SandboxId) -> BTreeSet<ContainerId> {
        let of = self.containers.values().filter(|container| container.config.sandbox == *sandbox);
        of.map(|container| container.info.id.clone()).collect()
    }
}

impl State {
    /// Returns the latest container of this name, in the pod of this name if one is given.
    pub(super) fn latest(&self, pod: Option<&str>, name: &str) -> Option<&Container> {
        let of_pod = |container: &&Container| {
            pod.is_none_or(|pod| container.info.labels.get(labels::POD_NAME).is_some_and(|label| label == pod))
        };
        let named = self.containers.values().filter(|container| container.config.name == name).filter(of_pod);
        named.max_by_key(|container| (container.info.created_at, container.config.attempt))
    }
}

fn shared_port(one: &SandboxConfig, other: &SandboxConfig) -> Option<u16> {
    let clash = one.port_mappings.iter().find(|port| {
        other.port_mappings.iter().any(|taken| {
            let overlap = port.host_ip.is_none() || taken.host_ip.is_none() || port.host_ip == taken.host_ip;
            overlap && (port.protocol, port.host_port) == (taken.protocol, taken.host_port)
        })
    });
    clash.map(|port| port.host_port)
}
