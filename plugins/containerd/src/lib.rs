//! Stanchion's backend for containerd, through its native API (ADR 3): no CRI, and a pause process only where needed.
//!
//! # Layout
//! - [`Containerd`]: the [`Runtime`] of the contract; each verb is in the module of its noun.
//! - `sandbox`: pinned namespaces and a network ([`stanchion_network`]), and a record in containerd; a `pause` process
//!   if its containers share a PID namespace. `container`: a record. `task`: its snapshot and process. `exec`:
//!   additional processes. `shim`: shims that containerd has forgotten.
//! - `spec`, `seccomp`: the OCI configuration. `image`: pull ([`stanchion_registry`]), import, unpack. `rootfs`:
//!   reads an image's files. `volumes`: images mounted in containers. `unused`: images that no container uses.
//! - `unattended`: containers that run while containerd is away.
//! - `inventory`, `events`, `stats`: state, changes, resource use.
//! - `client`: the connection. `names`: ids and labels. `config`: settings. `ready`: set-up before the first
//!   call.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read and remove what they have made"))]

mod client;
mod config;
mod container;
mod events;
mod exec;
mod image;
mod inventory;
mod limits;
mod names;
mod pause;
mod ready;
mod rootfs;
mod sandbox;
mod seccomp;
mod shim;
mod spec;
mod stats;
mod task;
mod unattended;
mod unused;
mod volumes;

use std::{future::Future, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use futures_util::Stream;
use stanchion_network::{Network, namespaces::users};
use stanchion_sdk::{
    Backend, blocking, cgroup,
    changes::{self, Changes},
    disk, proc,
    runtime::{
        Capabilities, ContainerConfig, ContainerId, DiskUsage, Error, Event, ExecId, ExecRequest, ExecStdio,
        ExitStatus, Health, Image, ImageDetails, ImageStore, ImportImages, Inventory, NodePaths, PodName, Progress,
        PullImage, Result, Runtime, SandboxConfig, SandboxId, SandboxInfo, Stats, TerminalSize, UnusedImage, Version,
    },
};
use tokio::sync::OnceCell;

use client::{Client, failed};
pub use config::Config;
use exec::Execs;
use image::Images;
pub use stanchion_network::{NetworkConfig, SEPARATOR};
pub use stanchion_registry::RegistryConfig;
pub use unattended::Unattended;

/// Backend that runs pods in containerd.
#[derive(Clone, Debug)]
pub struct Containerd {
    client: Client,
    config: Arc<Config>,
    images: Images,
    network: Network,
    /// Part of every sandbox id, unless empty.
    realm: &'static str,
    run_dir: PathBuf,
    state_dir: PathBuf,
    logger: PathBuf,
    changes: Changes,
    execs: Execs,
    ready: Arc<OnceCell<()>>,
}

impl Backend for Containerd {
    type Config = Config;

    fn open(config: Config, node: NodePaths) -> impl Future<Output = Result<Self>> + Send {
        std::future::ready(Self::new(config, &node))
    }
}

stanchion_sdk::export_backend!("containerd", Containerd);

impl Containerd {
    /// Makes the backend; it sends containerd nothing before the first call.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(config: Config, node: &NodePaths) -> Result<Self> {
        config.validate()?;
        let client = Client::new(&config.socket, &config.namespace)?;
        let images = Images::new(client.clone(), &config, node.state_dir.join("unpacked"));
        let network = Network::new(&config.network, node)?;
        let logger = config.logger.clone().unwrap_or_else(|| node.libexec_dir.join("stanchion-logger"));
        Ok(Self {
            client,
            images,
            network,
            realm: "",
            run_dir: node.run_dir.clone(),
            state_dir: node.state_dir.clone(),
            logger,
            config: Arc::new(config),
            changes: Changes::default(),
            execs: Execs::default(),
            ready: Arc::default(),
        })
    }

    /// Returns the backend with `realm` in its ids: several containerds of one node pin namespaces, lease addresses and
    /// keep runc's state in the same directories, so their ids must differ.
    #[must_use]
    pub fn in_realm(self, realm: &'static str) -> Self {
        Self { realm, ..self }
    }

    /// Repairs the network; the health reports what is wrong with it.
    async fn look_at_network(self, at_everything: bool) {
        let looked = self.blocking(move |backend| {
            backend.network.repair(at_everything);
            Ok(())
        });
        if let Err(error) = looked.await {
            tracing::warn!(error = error.chain(), "a look at the network failed");
        }
    }

    /// Runs `act` on a thread that may block.
    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce(Self) -> Result<T> + Send + 'static) -> Result<T> {
        let backend = self.clone();
        blocking(move || act(backend)).await
    }
}

impl Runtime for Containerd {
    async fn version(&self) -> Result<Version> {
        let answer = self.client.version().version(self.client.request(())).await;
        let answer = answer.map_err(|status| failed("asking for the version", &status))?.into_inner();
        let capabilities = Capabilities {
            log_files: true,
            import: true,
            shared_pid_namespace: true,
            user_namespaces: users::can_be_own(proc::kernel()),
            image_mounts: true,
        };
        Ok(Version { runtime: "containerd".to_owned(), runtime_version: answer.version, capabilities })
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        self.ready().await?;
        self.images.pull(request, progress).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.ready().await?;
        self.images.list().await
    }

    async fn inspect_image(&self, reference: String) -> Result<ImageDetails> {
        self.ready().await?;
        self.images.details(&reference).await
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.ready().await?;
        self.images.remove(&reference).await
    }

    async fn remove_unused_image(&self, image: UnusedImage) -> Result<()> {
        self.ready().await?;
        self.erase_unused_image(&image).await
    }

    async fn image_store(&self) -> Result<ImageStore> {
        self.ready().await?;
        let (root, in_use) = (self.images.root().await?, self.images_in_use().await?);
        self.blocking(move |_| disk::image_store(root, in_use)).await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.ready().await?;
        self.images.import(&request.path).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.ready().await?;
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        self.halt_sandbox(&id).await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        self.erase_sandbox(&id).await
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        self.ready().await?;
        self.make_container(config).await
    }

    async fn health(&self) -> Result<Health> {
        self.blocking(|backend| Ok(backend.network.health())).await
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        self.start_task(&id).await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        self.halt_container(&id, grace).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        self.erase_container(&id).await
    }

    async fn list(&self) -> Result<Inventory> {
        self.ready().await?;
        let ((), found) = tokio::join!(self.clone().look_at_network(true), self.inventory());
        found
    }

    async fn list_pod(&self, pod: PodName) -> Result<Inventory> {
        self.ready().await?;
        self.inventory_of(&pod).await
    }

    async fn stats(&self) -> Result<Stats> {
        self.read_stats().await
    }

    async fn disk_usage(&self, id: ContainerId) -> Result<DiskUsage> {
        self.read_disk_usage(&id).await
    }

    async fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
        self.ready().await?;
        self.run_beside(request, stdio).await
    }

    async fn resize_exec(&self, id: ExecId, size: TerminalSize) -> Result<()> {
        self.resize_beside(&id, size).await
    }

    async fn logs(&self, id: ContainerId, _sink: OwnedFd) -> Result<()> {
        Err(Error::unsupported(format!("copying the logs of {id} (they are in its log file)")))
    }

    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        events::events(self.clone())
    }
}
