//! The containerd that K3s ships, started by us while K3s's own is away.
//!
//! It never uses K3s's data: containerd opens its database under a lock and waits for it without limit, so K3s would
//! never come up again beside it. It has a root, state and socket of our own, and no CRI, whose port is K3s's. It keeps
//! running when the agent ends, as the pods do; the next agent finds it at its socket.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use stanchion_sdk::{
    blocking,
    runtime::{Error, ErrorKind, NodePaths, Result},
};
use tokio::{
    net::UnixStream,
    sync::{Mutex, watch},
};

use crate::layout::Layout;

/// Longest time to answer after its start, or to end.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// Size of the log above which the next start begins it anew, bytes.
const LOG: u64 = 10 << 20;
/// Plugins that we do not need; CRI would take the port of K3s's.
const DISABLED: &str = r#"["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]"#;

/// The daemon. Clones share it.
#[derive(Clone, Debug)]
pub struct Daemon {
    layout: Layout,
    /// Root directory, which survives a reboot: images and records.
    root: PathBuf,
    /// State directory, which is gone after a reboot: socket and bundles.
    state: PathBuf,
    child: Arc<Mutex<Option<Child>>>,
    /// Notified after each start.
    starts: Arc<watch::Sender<()>>,
}

impl Daemon {
    /// Makes the daemon, which is not started yet.
    pub fn new(layout: Layout, node: &NodePaths) -> Self {
        let (root, state) = (node.state_dir.join("k3s"), node.run_dir.join("k3s"));
        Self { layout, root, state, child: Arc::default(), starts: Arc::default() }
    }

    /// Returns the daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.state.join("containerd.sock")
    }

    /// Returns whether the daemon was started and not ended since, by this agent or an earlier one: it may have pods.
    pub fn is_in_use(&self) -> bool {
        self.mark().exists()
    }

    /// Waits until the daemon is in use.
    ///
    /// *Cancel-safe:* it only waits.
    pub async fn used(&self) {
        let mut starts = self.starts.subscribe();
        while !self.is_in_use() {
            // The sender is in `self`, so the channel cannot close.
            starts.changed().await.ok();
        }
    }

    fn mark(&self) -> PathBuf {
        self.root.join("in-use")
    }

    /// Starts the daemon, unless it runs. This also supervises it, since every list calls it first.
    pub async fn ensure(&self) -> Result<()> {
        if UnixStream::connect(self.socket()).await.is_ok() {
            return Ok(());
        }
        let mut child = self.child.lock().await;
        // Another caller may have started it meanwhile.
        if UnixStream::connect(self.socket()).await.is_ok() {
            return Ok(());
        }
        let failed = |error: io::Error| {
            Error::new(ErrorKind::Unavailable, "starting a containerd of our own for K3s's pods").caused_by(&error)
        };
        if let Some(old) = child.as_mut() {
            match old.try_wait().map_err(failed)? {
                Some(status) => {
                    tracing::warn!(%status, log = %self.log().display(), "our containerd ended; it is started again");
                }
                // The daemon is coming up, or hangs: no second one is started.
                None => return self.answers(old).await,
            }
        }
        let new = child.insert(self.start()?);
        tracing::info!(pid = new.id(), socket = %self.socket().display(), "started the containerd that K3s ships");
        self.starts.send_replace(());
        self.answers(new).await
    }

    fn start(&self) -> Result<Child> {
        let (program, programs) = self.layout.containerd()?;
        let begin = || {
            // The users of a pod's user namespace pass these directories on the way to their files.
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o711).create(&self.root)?;
            builder.create(&self.state)?;
            let config = self.root.join("config.toml");
            fs::write(&config, self.config())?;
            File::create(self.mark())?;
            let is_long = fs::metadata(self.log()).is_ok_and(|log| log.len() > LOG);
            let log = File::options().create(true).append(!is_long).write(true).truncate(is_long).open(self.log())?;
            let path = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths(std::iter::once(programs).chain(env::split_paths(&path)));
            use std::os::unix::process::CommandExt as _;
            Command::new(&program)
                .arg("--config")
                .arg(&config)
                .env("PATH", path.map_err(io::Error::other)?)
                // containerd would tell systemd that the agent is ready.
                .env_remove("NOTIFY_SOCKET")
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0)
                .spawn()
        };
        begin().map_err(|error: io::Error| {
            Error::new(ErrorKind::Unavailable, format!("starting {}", program.display())).caused_by(&error)
        })
    }

    fn config(&self) -> String {
        format!(
            "# Written by Stanchion at every start of this containerd.\nversion = 2\nroot = {root:?}\nstate = {state:?}\n\
             disabled_plugins = {DISABLED}\n\n[grpc]\naddress = {socket:?}\n\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {opt:?}\n",
            root = self.root.join("containerd"),
            state = self.state.join("containerd"),
            socket = self.socket(),
            opt = self.root.join("opt"),
        )
    }

    fn log(&self) -> PathBuf {
        self.root.join("containerd.log")
    }

    async fn answers(&self, child: &mut Child) -> Result<()> {
        let unavailable = |why: String| {
            Error::new(ErrorKind::Unavailable, "the containerd that K3s ships, started by us, does not answer")
                .because(format!("{why}; see {}", self.log().display()))
        };
        let begun = stanchion_sdk::clock::instant();
        loop {
            if UnixStream::connect(self.socket()).await.is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(unavailable(format!("it ended: {status}")));
            }
            if begun.elapsed() > PATIENCE {
                return Err(unavailable(format!("it has not within {} s", PATIENCE.as_secs())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends the daemon, when it has no pods any more. Images stay, for the next time.
    pub async fn end(&self) -> Result<()> {
        let mut child = self.child.lock().await;
        // Whoever listens at our socket is ours, started by this agent or an earlier one.
        if let Ok(connection) = UnixStream::connect(self.socket()).await {
            let pid = connection.peer_cred().ok().and_then(|peer| peer.pid()).and_then(Pid::from_raw);
            drop(connection);
            if let Some(pid) = pid {
                kill_process(pid, Signal::TERM).map_err(|error| {
                    Error::new(ErrorKind::Other, "ending the containerd of our own").caused_by(&io::Error::from(error))
                })?;
            }
            let ended = async {
                while UnixStream::connect(self.socket()).await.is_ok() {
                    tokio::time::sleep(PAUSE).await;
                }
            };
            if tokio::time::timeout(PATIENCE, ended).await.is_err() {
                return Err(Error::new(ErrorKind::Other, "the containerd of our own does not end"));
            }
        }
        // Reaped here, if this agent has started it.
        if let Some(mut old) = child.take()
            && let Err(error) = blocking(move || old.wait()).await
        {
            tracing::debug!(%error, "waiting for the end of our containerd failed");
        }
        match fs::remove_file(self.mark()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::Other, format!("removing {}", self.mark().display())).caused_by(&error))
            }
            _ => Ok(()),
        }
    }
}
