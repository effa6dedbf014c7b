//! Stanchion's backend for the containerd that K3s and RKE2 embed (ADR 10).
//!
//! It is the containerd backend, in a namespace of our own, on the daemon that K3s runs. It adds what is special to
//! K3s: that daemon exists only while K3s runs and has reached a server.
//!
//! # Layout
//! - [`K3s`]: the [`Runtime`] of the contract. `places`: K3s's containerd and ours, and the choice of one for each
//!   call.
//! - `layout`: K3s's paths. `state`: K3s's state. `presence`: whether its containerd answers.
//! - `archives`: images from files. `registries`: K3s's settings for registries. `own`: the containerd that K3s
//!   ships, started by us. `config`: settings.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod archives;
mod config;
mod layout;
mod limits;
mod own;
mod places;
mod presence;
mod registries;
mod state;

use std::{future::Future, os::fd::OwnedFd, time::Duration};

use futures_util::Stream;
use stanchion_sdk::{
    Backend, blocking,
    runtime::{
        ContainerConfig, ContainerId, DiskUsage, Event, ExecId, ExecRequest, ExecStdio, ExitStatus, Failover, Health,
        Image, ImageDetails, ImageStore, ImportImages, Inventory, NodePaths, PodName, Progress, PullImage, Result,
        Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
    },
};

pub use config::{Absent, Config, Return, Settings};
use places::Places;
use state::State;

/// Backend that runs pods in K3s's containerd.
#[derive(Clone, Debug)]
pub struct K3s {
    places: Places,
    settings: Settings,
}

impl Backend for K3s {
    type Config = Config;

    fn open(config: Config, node: NodePaths) -> impl Future<Output = Result<Self>> + Send {
        std::future::ready(Self::new(config, &node))
    }
}

stanchion_sdk::export_backend!("k3s", K3s);

impl K3s {
    /// Makes the backend; it sends K3s nothing before the first call.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(config: Config, node: &NodePaths) -> Result<Self> {
        config.k3s.validate()?;
        let settings = config.k3s.clone();
        Ok(Self { places: Places::new(config, node)?, settings })
    }

    /// Returns state and health while K3s's containerd is away.
    async fn health_without(&self) -> (State, Health) {
        let layout = self.places.layout().clone();
        let (state, layout) = blocking(move || (State::without_containerd(&layout), layout)).await;
        let pods = match self.settings.when_socket_absent {
            Absent::Wait => "Pods wait for it; those that run, run on",
            Absent::Fallback => "Another backend runs the pods, but for those that still run here",
            Absent::Own => "A containerd of our own runs the pods, but for those that still run here",
        };
        (state, state.health(&layout, pods))
    }
}

impl Runtime for K3s {
    async fn version(&self) -> Result<Version> {
        self.places.active().await?.version().await
    }

    async fn health(&self) -> Result<Health> {
        let is_there = self.places.k3s_is_there().await;
        let (state, health) = match is_there {
            true => (State::Up, State::Up.health(self.places.layout(), "")),
            false => self.health_without().await,
        };
        let mut health = state.with_networks(health, &self.places.network_health(is_there).await?);
        // Set while K3s's containerd answers too: the agent then knows where pods return to.
        if self.settings.when_socket_absent == Absent::Fallback {
            health.failover = Some(Failover { on_return: self.settings.on_return.into() });
        }
        Ok(health)
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        self.places.active().await?.pull_image(request, progress).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.places.list_images().await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        self.places.active().await?.inspect_image(reference).await
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.places.active().await?.remove_image(reference).await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        self.places.active().await?.remove_unused_image(image).await
    }

    async fn image_store(&self) -> Result<ImageStore> {
        self.places.active().await?.image_store().await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.places.import_images(request).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.places.create_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        let (place, id) = self.places.of_sandbox(&id)?;
        place.stop_sandbox(id).await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        let (place, id) = self.places.of_sandbox(&id)?;
        place.remove_sandbox(id).await
    }

    async fn create_container(&self, mut config: ContainerConfig) -> Result<ContainerId> {
        let (place, sandbox) = self.places.of_sandbox(&config.sandbox)?;
        let mark = places::mark(&config.sandbox.0);
        config.sandbox = sandbox;
        let id = place.create_container(config).await?;
        Ok(ContainerId(format!("{mark}{id}")))
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        let (place, id) = self.places.of_container(&id)?;
        place.start_container(id).await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        self.places.stop_container(&id, grace).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        let (place, id) = self.places.of_container(&id)?;
        place.remove_container(id).await
    }

    async fn list(&self) -> Result<Inventory> {
        self.places.list(None).await
    }

    async fn list_pod(&self, pod: PodName) -> Result<Inventory> {
        self.places.list(Some(&pod)).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.places.stats().await
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        let (place, id) = self.places.of_container(&id)?;
        place.disk_usage(id).await
    }

    async fn exec(&self, mut request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        let (place, id) = self.places.of_container(&request.container)?;
        request.container = id;
        place.exec(request, stdio).await
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        self.places.resize_exec(id, size).await
    }

    async fn logs(&self, id: ContainerId, sink: OwnedFd) -> Result<()> {
        let (place, id) = self.places.of_container(&id)?;
        place.logs(id, sink).await
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        self.places.clone().events()
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, path::Path};

    use serde_json::json;
    use stanchion_sdk::runtime::{Health, NodePaths, Runtime};

    use super::K3s;

    /// Returns the health of a backend whose network cannot be ready: its CNI plugins have no configuration.
    async fn health(directory: &Path, when_socket_absent: &str) -> Health {
        let config = json!({
            "data_dir": directory.join("data"),
            "socket": directory.join("containerd.sock"),
            "when_socket_absent": when_socket_absent,
            "network": {"cni_config": directory.join("missing.conflist")},
        });
        let node = NodePaths {
            node_name: "node".to_owned(),
            state_dir: directory.join("state"),
            run_dir: directory.join("run"),
            log_dir: directory.join("logs"),
            libexec_dir: directory.join("libexec"),
        };
        let backend = K3s::new(serde_json::from_value(config).expect("read"), &node).expect("right");
        backend.health().await.expect("answered without containerd")
    }

    #[tokio::test]
    async fn a_network_that_is_not_ready_is_told_wherever_pods_run() {
        let directory = tempfile::tempdir().expect("a directory");
        for when_socket_absent in ["wait", "fallback", "own"] {
            let health = health(directory.path(), when_socket_absent).await;
            assert_eq!(health.state, "network-not-ready", "{when_socket_absent}");
            for word in ["missing.conflist", " | k3s-absent: K3s is not in "] {
                assert!(health.message.contains(word), "{when_socket_absent}: {}", health.message);
            }
            assert_eq!(health.failover.is_some(), when_socket_absent == "fallback");
        }
        let _k3s = UnixListener::bind(directory.path().join("containerd.sock")).expect("a socket");
        for when_socket_absent in ["wait", "own"] {
            let health = health(directory.path(), when_socket_absent).await;
            assert_eq!(health.state, "network-not-ready", "{when_socket_absent}");
            assert!(!health.message.contains("k3s-"), "{}", health.message);
        }
    }
}
