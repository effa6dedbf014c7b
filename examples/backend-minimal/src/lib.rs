//! The smallest backend for Stanchion: it says which runtime it is for, sees it come and go, and runs nothing yet.
//!
//! The runtime is a daemon that answers `VERSION` with a line, on a Unix socket. Every method below that says
//! `unsupported` is one to write; `stanchion backend check` says what is left. See plugins/README.md.

#![forbid(unsafe_code)]

use std::{io, path::PathBuf, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use stanchion_sdk::{Backend, runtime::*};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

/// The table `[backend.minimal]` of the agent's configuration. A key that is not here keeps the backend closed, and is named.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the daemon listens.
    pub socket: PathBuf,
}

/// The backend.
#[derive(Clone, Debug)]
pub struct Minimal {
    config: Config,
}

impl Backend for Minimal {
    type Config = Config;

    /// Only what is wrong with the configuration is an error here: the daemon may come later, and go again.
    async fn open(config: Config, _node: NodePaths) -> Result<Self> {
        if !config.socket.is_absolute() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("socket = {:?}: expected an absolute path", config.socket),
            ));
        }
        Ok(Self { config })
    }
}

impl Minimal {
    async fn connect(&self) -> Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.config.socket).await;
        stream.map(BufReader::new).map_err(|error| self.unavailable(&error))
    }

    /// What the agent makes of it: it backs off, shows the message, and leaves the pods alone.
    fn unavailable(&self, error: &io::Error) -> Error {
        let message = format!("the daemon does not answer at {}", self.config.socket.display());
        Error::new(ErrorKind::Unavailable, message).caused_by(error)
    }
}

impl Runtime for Minimal {
    async fn version(&self) -> Result<Version> {
        let mut daemon = self.connect().await?;
        let mut line = String::new();
        daemon.write_all(b"VERSION\n").await.map_err(|error| self.unavailable(&error))?;
        daemon.read_line(&mut line).await.map_err(|error| self.unavailable(&error))?;
        tracing::debug!(version = line.trim(), "the daemon answered"); // arrives in the agent's log
        Ok(Version {
            runtime: "minimal".to_owned(),
            runtime_version: line.trim().to_owned(),
            capabilities: Capabilities::default(),
        })
    }

    /// The truth that the agent works from: what it does not find here it makes, what it does not want it removes.
    async fn list(&self) -> Result<Inventory> {
        self.connect().await?;
        Ok(Inventory::default())
    }

    /// Nothing happens here but that the daemon goes away: the stream ends with an error then.
    fn events(&self) -> impl Stream<Item = Result<Event>> + Send + 'static {
        let backend = self.clone();
        let connected = async move { backend.connect().await.map(|daemon| (backend, daemon)) };
        stream::once(connected).flat_map(|connected| match connected {
            Err(error) => stream::iter([Err(error)]).left_stream(),
            Ok((backend, mut daemon)) => {
                let gone = async move {
                    let read = daemon.read_line(&mut String::new()).await;
                    Err(backend.unavailable(&read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())))
                };
                stream::iter([Ok(EventKind::Resync.into())]).chain(stream::once(gone)).right_stream()
            }
        })
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        Err(Error::unsupported("listing images"))
    }

    async fn create_sandbox(&self, config: SandboxConfig) -> Result<SandboxInfo> {
        Err(Error::unsupported(format!("the sandbox of pod {}", config.name)))
    }

    async fn stop_sandbox(&self, id: SandboxId) -> Result<()> {
        Err(Error::unsupported(format!("stopping sandbox {id}")))
    }

    async fn remove_sandbox(&self, id: SandboxId) -> Result<()> {
        Err(Error::unsupported(format!("removing sandbox {id}")))
    }

    async fn create_container(&self, config: ContainerConfig) -> Result<ContainerId> {
        Err(Error::unsupported(format!("container {}", config.name)))
    }

    async fn start_container(&self, id: ContainerId) -> Result<()> {
        Err(Error::unsupported(format!("starting container {id}")))
    }

    async fn stop_container(&self, id: ContainerId, _grace: Duration) -> Result<()> {
        Err(Error::unsupported(format!("stopping container {id}")))
    }

    async fn remove_container(&self, id: ContainerId) -> Result<()> {
        Err(Error::unsupported(format!("removing container {id}")))
    }
}

stanchion_sdk::export_backend!("minimal", Minimal);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        path::Path,
        thread,
    };

    use stanchion_sdk::runtime::testing::conformance::{self, Options};

    use super::*;

    /// A daemon that answers whatever it is asked.
    fn daemon(socket: &Path) {
        let listener = UnixListener::bind(socket).expect("a socket");
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                // One that asks nothing stays connected.
                thread::spawn(move || {
                    while client.read(&mut [0; 64]).is_ok_and(|read| read > 0) && client.write_all(b"1.0\n").is_ok() {}
                });
            }
        });
    }

    #[tokio::test]
    async fn nothing_that_is_there_is_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("minimal.sock");
        daemon(&socket);
        let backend = Minimal::open(Config { socket }, NodePaths::default()).await.expect("it opens");
        let options = Options::pulling("docker.io/library/busybox:latest", dir.path());
        let transcript = conformance::run(&backend, &options).await;
        println!("{transcript}");
        assert!(transcript.failures().is_empty(), "{transcript}");
        assert!(!transcript.unsupported().contains(&"events.resync_first"), "{transcript}");
    }

    #[tokio::test]
    async fn a_daemon_that_is_away_is_unavailable() {
        let config = Config { socket: "/nonexistent/minimal.sock".into() };
        let backend = Minimal::open(config, NodePaths::default()).await.expect("it opens all the same");
        let error = backend.version().await.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
