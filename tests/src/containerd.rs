//! A containerd of the node's own: own root, state and socket, no CRI, as on a node that Docker was installed on.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{ctr::Ctr, k3s::K3s, process::Process, tools, until};

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
    socket: PathBuf,
    /// Where it finds its shim and runc before anywhere else.
    programs: Option<PathBuf>,
    process: Option<Process>,
}

impl Containerd {
    /// Starts one that keeps everything in `dir`, and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        Self::begin(dir, &dir.join("root"), &dir.join("state"), &dir.join("containerd.sock"), None)
    }

    /// Starts K3s's.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of_k3s(k3s: &K3s) -> Result<Self> {
        let dir = k3s.data().join("agent/containerd");
        Self::begin(&dir, &dir, &k3s.state(), &k3s.socket(), Some(k3s.programs()))
    }

    fn begin(dir: &Path, root: &Path, state: &Path, socket: &Path, programs: Option<PathBuf>) -> Result<Self> {
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\ndisabled_plugins = {DISABLED}\n[grpc]\naddress = {socket:?}\n",
        );
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let path = dir.join("config.toml");
        fs::write(&path, config).with_context(|| format!("cannot write {}", path.display()))?;
        let mut containerd = Self { dir: dir.to_path_buf(), socket: socket.to_path_buf(), programs, process: None };
        containerd.resume()?;
        Ok(containerd)
    }

    /// Starts it again after [`end`](Self::end).
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = tools::command("containerd")?;
        command.arg("--config").arg(self.dir.join("config.toml"));
        if let Some(programs) = &self.programs {
            let path = command.get_envs().find_map(|(name, value)| value.filter(|_| name == "PATH"));
            let path = path.map(OsStr::to_owned).unwrap_or_default();
            let path = env::join_paths(std::iter::once(programs.clone()).chain(env::split_paths(&path)));
            command.env("PATH", path.context("PATH cannot be joined")?);
        }
        let log = self.log();
        let mut process = Process::start("containerd", &mut command, &log)?;
        let ctr = self.ctr("stanchion");
        until("containerd to answer", Duration::from_secs(20), || {
            if let Some(status) = process.ended()? {
                bail!("it ended ({status}), see {}", log.display());
            }
            ctr.run(&["version"]).map(drop)
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends the daemon with `signal`; the containers stay.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut process = self.process.take().context("containerd is not running")?;
        process.signal(signal)?;
        process.wait(Duration::from_secs(20))
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("containerd.log")
    }

    /// What it says about one of its namespaces.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Ctr {
        Ctr::new(&self.socket(), namespace)
    }
}
