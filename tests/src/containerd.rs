//! A containerd of the node's own: own root, state and socket, no CRI, as on a node that Docker was installed on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{ctr::Ctr, daemon::Daemon};

/// Plugins that the tests do not need; without them it starts in 20 ms.
const DISABLED: &str = r#"[
    "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
]"#;

/// The daemon, running or stopped. Its containers outlive it.
#[derive(Debug)]
pub struct Containerd {
    dir: PathBuf,
    daemon: Daemon,
}

impl Containerd {
    /// Starts one that keeps everything in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {DISABLED}\n[grpc]\naddress = {socket:?}\n",
            root = dir.join("root"),
            state = dir.join("state"),
            socket = dir.join("containerd.sock"),
        );
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("config.toml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let daemon = Daemon::new("containerd", "--config", &path, &dir.join("containerd.log"));
        let mut containerd = Self { dir: dir.to_path_buf(), daemon };
        containerd.resume()?;
        Ok(containerd)
    }

    /// Starts it again after [`end`](Self::end).
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&mut self) -> Result<()> {
        let ctr = self.ctr("stanchion");
        self.daemon.start(|| ctr.run(&["version"]).map(drop))
    }

    /// Ends the daemon with `signal`; the containers stay.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.daemon.end(signal)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.daemon.id()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// What it says about one of its namespaces.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Ctr {
        Ctr::new(&self.socket(), namespace)
    }
}
