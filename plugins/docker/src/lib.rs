//! Stanchion's backend for Docker Engine 20.10 and newer, through its API (ADR 7).
//!
//! # Layout
//! - [`Docker`]: the [`Runtime`] of the contract; each verb is in the module of its noun.
//! - `sandbox`: a container that holds a pod's namespaces, of an image that `pause` makes. `container`:
//!   containers as Docker creates them; `security`: user and privileges; `volumes`: images mounted in them.
//!   `process`: start, stop, kill. `exec`: additional processes. `orphan`: processes that Docker does not know
//!   of.
//! - `image`: pull, import, list. `logs`: output of containers.
//! - `inventory`, `events`, `stats`: state, changes, resource use. `kills`: OOM kills.
//! - `client`: the connection. `names`: labels. `config`: settings.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod client;
mod config;
mod container;
mod events;
mod exec;
mod image;
mod inventory;
mod kills;
mod limits;
mod logs;
mod names;
mod orphan;
mod pause;
mod process;
mod sandbox;
mod security;
mod stats;
mod volumes;

use std::{future::Future, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use futures_util::Stream;
use stanchion_sdk::{
    Backend, blocking,
    cgroup::Driver,
    changes::Changes,
    disk,
    runtime::{
        Capabilities, ContainerConfig, ContainerId, DiskUsage, Event, ExecId, ExecRequest, ExecStdio, ExitStatus,
        Image, ImageDetails, ImageStore, ImportImages, Inventory, NodePaths, PodName, Progress, PullImage, Result,
        Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
    },
};
use tokio::sync::{Mutex, OnceCell};

use client::{Client, failed};
pub use config::{Config, RegistryConfig};
use exec::Execs;
use inventory::Seen;
use kills::Kills;
use orphan::Untried;
use pause::Pause;

/// Storage driver whose layers are directories.
const LAYERED: &str = "overlay2";

/// Backend that runs pods in Docker.
#[derive(Clone, Debug)]
pub struct Docker {
    client: Client,
    config: Arc<Config>,
    run_dir: PathBuf,
    pause: Pause,
    changes: Changes,
    execs: Execs,
    seen: Seen,
    kills: Kills,
    untried: Untried,
    /// Set-up of Docker, read before the first call.
    ready: Arc<Mutex<Option<Engine>>>,
    swept: Arc<OnceCell<()>>,
}

/// Set-up of a Docker.
#[derive(Clone, Debug)]
struct Engine {
    /// Docker's cgroup driver.
    driver: Driver,
    /// Docker's data directory.
    root: PathBuf,
    /// Whether an image's layers are available as directories.
    is_layered: bool,
}

impl Backend for Docker {
    type Config = Config;

    fn open(config: Config, node: NodePaths) -> impl Future<Output = Result<Self>> + Send {
        std::future::ready(Self::new(config, &node))
    }
}

stanchion_sdk::export_backend!("docker", Docker);

impl Docker {
    /// Makes the backend; it sends Docker nothing before the first call.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(config: Config, node: &NodePaths) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            client: Client::new(&config.socket, &config.namespace)?,
            config: Arc::new(config),
            run_dir: node.run_dir.clone(),
            pause: Pause::default(),
            changes: Changes::default(),
            execs: Execs::default(),
            seen: Seen::default(),
            kills: Kills::default(),
            untried: Untried::default(),
            ready: Arc::default(),
            swept: Arc::default(),
        })
    }

    /// Agrees with Docker on a version and reads its set-up, once until Docker goes away.
    async fn ready(&self) -> Result<Engine> {
        let mut ready = self.ready.lock().await;
        if let Some(engine) = &*ready {
            return Ok(engine.clone());
        }
        self.swept.get_or_init(|| self.sweep_volumes()).await;
        self.client.negotiate().await?;
        let info = self.client.api().info().await.map_err(|error| failed("asking Docker how it is set up", &error))?;
        let driver = match info.cgroup_driver {
            Some(bollard::models::SystemInfoCgroupDriverEnum::SYSTEMD) => Driver::Systemd,
            _ => Driver::Files,
        };
        let is_layered = info.driver.is_some_and(|driver| driver == LAYERED);
        let engine = Engine { driver, root: info.docker_root_dir.unwrap_or_default().into(), is_layered };
        *ready = Some(engine.clone());
        Ok(engine)
    }

    /// Forgets what was read of Docker: after it went away, another may take its place.
    async fn forget(&self) {
        *self.ready.lock().await = None;
        self.seen.clear();
    }
}

impl Runtime for Docker {
    async fn version(&self) -> Result<Version> {
        let version = self.client.negotiate().await?;
        let image_mounts = self.ready().await?.is_layered;
        let capabilities =
            Capabilities { import: true, shared_pid_namespace: true, image_mounts, ..Capabilities::default() };
        let runtime_version = version.version.unwrap_or_default();
        Ok(Version { runtime: "docker".to_owned(), runtime_version, capabilities })
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        self.ready().await?;
        self.fetch(request, progress).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.ready().await?;
        self.images().await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        self.ready().await?;
        let image = self.look_up_image(&reference).await?;
        Ok(ImageDetails { user: image::user(&image), stop_signal: image::stop_signal(&image) })
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.ready().await?;
        self.forget_image(&reference).await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        self.ready().await?;
        self.forget_unused_image(&image).await
    }

    async fn image_store(&self) -> Result<ImageStore> {
        let root = self.ready().await?.root;
        let in_use = self.images_in_use().await?;
        blocking(move || disk::image_store(root, in_use)).await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.ready().await?;
        self.import(request.path).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        self.ready().await?;
        self.halt_sandbox(&id).await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        self.ready().await?;
        self.erase_sandbox(&id).await
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        self.ready().await?;
        self.make_container(config).await
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        self.ready().await?;
        self.start_process(&id).await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        self.ready().await?;
        self.halt_container(&id, grace).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        self.ready().await?;
        self.erase_container(&id).await
    }

    async fn list(&self) -> Result<Inventory> {
        self.ready().await?;
        self.inventory().await
    }

    async fn list_pod(&self, pod: PodName) -> Result<Inventory> {
        self.ready().await?;
        self.inventory_of_pod(&pod).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.ready().await?;
        self.read_stats().await
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        self.ready().await?;
        self.read_disk_usage(&id).await
    }

    async fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        self.ready().await?;
        self.run_beside(request, stdio).await
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        self.resize_beside(&id, size).await
    }

    async fn logs(&self, id: ContainerId, sink: OwnedFd) -> Result<()> {
        self.ready().await?;
        self.copy_logs(&id, sink).await
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        events::events(self.clone())
    }
}
