//! A containerd with its own root, state and socket, and without CRI, as Docker installs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use crate::{ctr::Ctr, daemon::Daemon, k3s::K3s};

/// Plugins that the tests do not need; without them containerd starts in 20 ms.
const DISABLED: &str = r#"[
    "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
]"#;

/// Daemon, running or stopped. Its containers outlive it.
#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    daemon: Daemon,
}

impl Containerd {
    /// Starts a containerd that keeps everything in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::begin(dir, &dir.join("root"), &dir.join("state"), &dir.join("containerd.sock"), None)
    }

    /// Starts the containerd of a K3s layout.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of_k3s(k3s: &K3s) -> Result<Self> {
        let dir = k3s.data().join("agent/containerd");
        Self::begin(&dir, &dir, &k3s.state(), &k3s.socket(), Some(&k3s.programs()))
    }

    /// Starts a containerd; it searches `programs` for its shim and runc before all other directories.
    fn begin(dir: &Path, root: &Path, state: &Path, socket: &Path, programs: Option<&Path>) -> Result<Self> {
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {DISABLED}\n[grpc]\naddress = {socket:?}\n",
        );
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("config.toml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let daemon = Daemon::new("containerd", "--config", &path, &dir.join("containerd.log")).with_programs(programs);
        let mut containerd = Self { socket: socket.to_path_buf(), daemon };
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

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.daemon.id()
    }

    /// Returns the path of its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Returns a client for one of its namespaces.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Ctr {
        Ctr::new(&self.socket(), namespace)
    }
}
