//! Stanchion's backend for containerd, through its native API (ADR 3): no CRI, no CNI plugins, no pause process.
//!
//! # Layout
//! - [`Containerd`]: the [`Runtime`] of the contract; each verb is in the module of its noun.
//! - [`sandbox`]: pinned [`namespaces`], [`network`], and a record in containerd. [`container`]: record, snapshot, task.
//! - [`spec`], [`seccomp`]: the OCI configuration. [`image`]: pulled, imported, unpacked. [`exec`]: processes beside.
//! - [`inventory`], [`events`], [`stats`]: what there is, what happens, what it uses.
//! - [`client`]: the connection. [`names`]: ids and labels. [`cgroup`]: what runc leaves of a pod's cgroups.

mod cgroup;
mod client;
mod config;
mod container;
mod events;
mod exec;
mod image;
mod inventory;
mod names;
mod namespaces;
mod network;
mod sandbox;
mod seccomp;
mod spec;
mod stats;

use std::{collections::HashMap, future::Future, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use containerd_client::{
    services::v1::{CreateNamespaceRequest, Namespace},
    tonic::Code,
};
use futures_util::Stream;
use stanchion_sdk::{
    Backend,
    runtime::{
        Capabilities, ContainerConfig, ContainerId, Error, Event, ExecId, ExecRequest, ExecStdio, ExitStatus, Image,
        ImportImages, Inventory, NodePaths, Progress, PullImage, Result, Runtime, SandboxConfig, SandboxId,
        SandboxInfo, Stats, TerminalSize, Version,
    },
};
use tokio::sync::OnceCell;

use client::{Client, failed};
pub use config::Config;
use image::Images;
use network::Network;

/// containerd as a runtime of pods.
#[derive(Clone, Debug)]
pub struct Containerd {
    client: Client,
    config: Arc<Config>,
    images: Images,
    network: Network,
    run_dir: PathBuf,
    logger: PathBuf,
    namespace: Arc<OnceCell<()>>,
}

impl Backend for Containerd {
    type Config = Config;

    fn open(config: Config, node: NodePaths) -> impl Future<Output = Result<Self>> + Send {
        std::future::ready(Self::new(config, &node))
    }
}

stanchion_sdk::export_backend!("containerd", Containerd);

impl Containerd {
    /// The backend; containerd is asked nothing before the first call.
    ///
    /// # Errors
    /// The configuration is wrong.
    pub fn new(config: Config, node: &NodePaths) -> Result<Self> {
        let client = Client::new(&config.socket, &config.namespace)?;
        let images = Images::new(client.clone(), &config.snapshotter, config.registry.clone());
        let network = Network::new(&config.network, &node.run_dir)?;
        let logger = config.logger.clone().unwrap_or_else(|| node.libexec_dir.join("stanchion-logger"));
        Ok(Self {
            client,
            images,
            network,
            run_dir: node.run_dir.clone(),
            logger,
            config: Arc::new(config),
            namespace: Arc::default(),
        })
    }

    /// Makes our namespace in containerd, once.
    async fn namespace(&self) -> Result<()> {
        let make = async {
            let namespace = Namespace { name: self.client.namespace().to_owned(), labels: HashMap::new() };
            let request = self.client.request(CreateNamespaceRequest { namespace: Some(namespace) });
            match self.client.namespaces().create(request).await {
                Err(status) if status.code() != Code::AlreadyExists => {
                    Err(failed(format!("reaching containerd at {}", self.client.socket().display()), &status))
                }
                _ => Ok(()),
            }
        };
        self.namespace.get_or_try_init(|| make).await.map(drop)
    }

    /// Runs something that blocks.
    async fn blocking<T: Send + 'static>(&self, act: impl FnOnce(Self) -> Result<T> + Send + 'static) -> Result<T> {
        let backend = self.clone();
        tokio::task::spawn_blocking(move || act(backend)).await.unwrap_or_else(|panic| {
            Err(Error::new(stanchion_sdk::runtime::ErrorKind::Crashed, "a step on the node ended abnormally")
                .caused_by(&panic))
        })
    }
}

impl Runtime for Containerd {
    async fn version(&self) -> Result<Version> {
        let answer = self.client.version().version(self.client.request(())).await;
        let answer = answer.map_err(|status| failed("asking for the version", &status))?.into_inner();
        let capabilities = Capabilities { log_files: true, import: true, ..Capabilities::default() };
        Ok(Version { runtime: "containerd".to_owned(), runtime_version: answer.version, capabilities })
    }

    async fn pull_image(&self, request: PullImage, progress: Progress) -> Result<Image> {
        self.namespace().await?;
        self.images.pull(request, progress).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.namespace().await?;
        self.images.list().await
    }

    async fn remove_image(&self, reference: String) -> Result<()> {
        self.images.remove(&reference).await
    }

    async fn import_images(&self, request: ImportImages) -> Result<Vec<Image>> {
        self.namespace().await?;
        self.images.import(&request.path).await
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        self.namespace().await?;
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        self.halt_sandbox(&id).await
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        self.erase_sandbox(&id).await
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        self.make_container(config).await
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        self.run_task(&id).await
    }

    async fn stop_container(&self, id: ContainerId, grace: Duration) -> Result<()> {
        self.halt_container(&id, grace).await
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        self.erase_container(&id).await
    }

    async fn list(&self) -> Result<Inventory> {
        self.inventory().await
    }

    async fn stats(&self) -> Result<Stats> {
        self.read_stats().await
    }

    async fn exec(&self, request: ExecRequest, stdio: ExecStdio) -> Result<ExitStatus> {
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
