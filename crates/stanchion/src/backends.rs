//! Opening of the backend libraries, with retries.

use std::time::Duration;

use stanchion_agent::{
    Supervisor,
    backends::{Backend, BackendInfo, Opened},
    config::AgentConfig,
};
use stanchion_loader::{BackendSpec, LoadedBackend, load};
use stanchion_runtime::{NodePaths, OpenRequest};
use tokio::sync::watch;

use crate::config::BackendSettings;

/// Pause between two attempts to open a backend.
const RETRY: Duration = Duration::from_secs(10);

/// Error of a backend until the first attempt to open it has ended.
pub const OPENING: &str = "the backend is being opened";

/// Opens a backend in the background.
pub fn open(settings: &BackendSettings, agent: &AgentConfig, tasks: &Supervisor) -> Backend<LoadedBackend> {
    let (tell, opened) = watch::channel(Opened::No { reason: OPENING.to_owned() });
    let spec = spec(settings, agent);
    let shutdown = tasks.shutdown().clone();
    let (name, failover) = (settings.name.clone(), settings.failover);
    tasks.spawn(format!("open {name}"), async move {
        let opening = async {
            loop {
                match load(spec.clone()).await {
                    Ok(backend) => {
                        let (major, minor) = backend.abi();
                        let info = BackendInfo {
                            library: backend.library().to_owned(),
                            version: backend.library_version(),
                            abi: format!("{major}.{minor}"),
                        };
                        tell.send_replace(Opened::Yes { runtime: std::sync::Arc::new(backend), info });
                        // The agent holds the other end of the channel until it stops.
                        return tell.closed().await;
                    }
                    Err(error) => tell.send_replace(Opened::No { reason: error.chain() }),
                };
                tokio::time::sleep(RETRY).await;
            }
        };
        shutdown.run_until_cancelled(opening).await;
    });
    Backend { name, failover, opened }
}

/// Returns the library of a backend and the parameters to open it with.
pub fn spec(settings: &BackendSettings, agent: &AgentConfig) -> BackendSpec {
    let libexec_dir = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let node = NodePaths {
        node_name: agent.node_name.clone(),
        state_dir: agent.state_dir.clone(),
        run_dir: agent.run_dir.clone(),
        log_dir: agent.log_dir.clone(),
        libexec_dir: libexec_dir.unwrap_or_default(),
    };
    BackendSpec {
        name: settings.name.clone(),
        library: settings.library.clone(),
        sha256: settings.sha256.clone(),
        open: OpenRequest { config: settings.table.clone(), node },
    }
}
