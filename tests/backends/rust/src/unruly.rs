//! Backend that misbehaves.

use std::{fs, future::pending, os::fd::OwnedFd, path::PathBuf, thread, time::Duration};

use futures_util::{Stream, stream};
use serde::Deserialize;
use stanchion_sdk::{Backend, runtime::*};

/// Misbehaviour on opening and closing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What `open` does: `panic`, `fail`, or, for all else, succeed.
    open: String,
    /// How long closing takes, ms.
    close_ms: u64,
    /// File that closing writes.
    closed: Option<PathBuf>,
}

#[derive(Debug)]
pub struct Unruly {
    config: Config,
}

impl Backend for Unruly {
    type Config = Config;

    async fn open(config: Config, _: NodePaths) -> Result<Self> {
        tokio::task::yield_now().await;
        match config.open.as_str() {
            "panic" => panic!("tripped while opening"),
            "fail" => Err(Error::new(ErrorKind::Permission, "the daemon does not let us in")),
            _ => Ok(Self { config }),
        }
    }
}

impl Drop for Unruly {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(self.config.close_ms));
        if let Some(path) = &self.config.closed {
            fs::write(path, "closed").expect("the test's directory can be written");
        }
    }
}

/// Panics when it is dropped.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("tripped while being given up");
        }
    }
}

impl Runtime for Unruly {
    /// Panics.
    async fn version(&self) -> Result<Version> {
        tokio::task::yield_now().await;
        panic!("tripped over version");
    }

    /// Never answers.
    async fn list(&self) -> Result<Inventory> {
        pending().await
    }

    /// Panics when it is cancelled.
    async fn list_images(&self) -> Result<Vec<Image>> {
        let _mine = Mine;
        pending().await
    }

    /// Blocks its thread for 8 s, so that it cannot be cancelled.
    async fn stats(&self) -> Result<Stats> {
        thread::sleep(Duration::from_secs(8));
        Ok(Stats::default())
    }

    /// Logs while it works.
    async fn remove_image(&self, reference: String) -> Result<()> {
        tracing::info!(reference, "removing as asked");
        Ok(())
    }

    /// Sends 100 000 events without a pause, then panics.
    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        stream::unfold(0_u32, |sent| async move {
            match sent {
                100_000 => panic!("tripped over events"),
                _ => Some((Ok(EventKind::Unknown.into()), sent + 1)),
            }
        })
    }

    async fn pull_image(&self, request: PullImage, _: Progress) -> Result<Image> {
        Err(Error::unsupported(request.reference))
    }
    async fn create_sandbox(&self, _: SandboxConfig) -> Result<SandboxInfo> {
        Err(Error::unsupported("create_sandbox"))
    }
    async fn stop_sandbox(&self, _: SandboxId) -> Result<()> {
        Err(Error::unsupported("stop_sandbox"))
    }
    async fn remove_sandbox(&self, _: SandboxId) -> Result<()> {
        Err(Error::unsupported("remove_sandbox"))
    }
    async fn create_container(&self, _: ContainerConfig) -> Result<ContainerId> {
        Err(Error::unsupported("create_container"))
    }
    async fn start_container(&self, _: ContainerId) -> Result<()> {
        Err(Error::unsupported("start_container"))
    }
    async fn stop_container(&self, _: ContainerId, _: Duration) -> Result<()> {
        Err(Error::unsupported("stop_container"))
    }
    async fn remove_container(&self, _: ContainerId) -> Result<()> {
        Err(Error::unsupported("remove_container"))
    }
    async fn exec(&self, _: ExecRequest, _: ExecStdio) -> Result<ExitStatus> {
        Err(Error::unsupported("exec"))
    }
    async fn resize_exec(&self, _: ExecId, _: TerminalSize) -> Result<()> {
        Err(Error::unsupported("resize_exec"))
    }
    async fn logs(&self, _: ContainerId, _: OwnedFd) -> Result<()> {
        Err(Error::unsupported("logs"))
    }
}
