//! A dockerd with its own data, state and socket, on a containerd of its own, without packet filter rules.

mod deaf;
mod engine;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

pub use self::{deaf::Deaf, engine::Engine};
use crate::{cgroups, daemon::Daemon, process, slot::Names, tools, until};

/// Docker's namespace in the containerd below it.
pub const NAMESPACE: &str = "moby";

/// Daemon, running or stopped.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    daemon: Daemon,
}

impl Docker {
    /// Starts a dockerd that keeps everything in `dir`, with its containers on the bridge of `names`, and waits until
    /// it answers. `containerd` is the socket of the containerd below it, `mirror` the registry that stands in for
    /// Docker Hub.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(dir: &Path, names: &Names, containerd: &Path, mirror: Option<&str>) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let daemon = Daemon::new("dockerd", "--config-file", &dir.join("daemon.json"), &dir.join("dockerd.log"));
        let mut docker = Self { dir: dir.to_path_buf(), daemon };
        bridge(names)?;
        let mirrors: Vec<_> = mirror.iter().map(|address| format!("http://{address}")).collect();
        let driver = cgroups::Driver::chosen();
        let mut settings = json!({
            "data-root": dir.join("data"),
            "exec-root": dir.join("exec"),
            "pidfile": dir.join("dockerd.pid"),
            "deprecated-key-path": dir.join("key.json"),
            "hosts": [format!("unix://{}", docker.socket().display())],
            "group": "root",
            "containerd": containerd,
            // The default namespace is free: no other dockerd uses the containerd above.
            "containerd-namespace": NAMESPACE,
            "storage-driver": "overlay2",
            "exec-opts": [format!("native.cgroupdriver={}", driver.name())],
            "cgroup-parent": driver.parent(&names.cgroup),
            "bridge": names.bridge,
            // Host ports go through docker-proxy; the machine's packet filter and its settings stay as they are.
            "iptables": false,
            "ip6tables": false,
            "ip-forward": false,
            "ip-masq": false,
            "userland-proxy": true,
            "registry-mirrors": mirrors,
            "live-restore": false,
            "shutdown-timeout": 10,
        });
        // Before version 25, dockerd lowers its own OOM score, which not every machine allows; since then, systemd does
        // it.
        if major_version()? < 25 {
            settings["oom-score-adjust"] = 0.into();
        }
        // Without this path, newer dockerds lose docker-proxy when they read their configuration again.
        if let Some(proxy) = tools::find("docker-proxy")? {
            settings["userland-proxy-path"] = proxy.display().to_string().into();
        }
        docker.configure(&settings)?;
        docker.resume()?;
        Ok(docker)
    }

    fn configure(&self, settings: &Value) -> Result<()> {
        let path = self.dir.join("daemon.json");
        fs::write(&path, settings.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps containers running while dockerd is away: sets `live-restore` and makes dockerd read its configuration
    /// again.
    ///
    /// # Errors
    /// When its configuration cannot be written, or dockerd does not apply it.
    pub fn keep_containers(&mut self) -> Result<()> {
        let path = self.dir.join("daemon.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut settings: Value = serde_json::from_slice(&text).context("the configuration of dockerd is no JSON")?;
        settings["live-restore"] = true.into();
        self.configure(&settings)?;
        self.daemon.process()?.signal(Signal::HUP)?;
        let engine = self.engine();
        until("dockerd to heed its configuration", Duration::from_secs(20), || {
            ensure!(engine.get("/info")?["LiveRestoreEnabled"] == true, "live-restore is off");
            Ok(())
        })
    }

    /// Starts it again after [`end`](Self::end).
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume(&mut self) -> Result<()> {
        // A killed dockerd leaves its pid file, and another process may have that pid by now.
        fs::remove_file(self.dir.join("dockerd.pid")).ok();
        let engine = self.engine();
        self.daemon.start(|| engine.get("/version").map(drop))
    }

    /// Ends the daemon with `signal`.
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
        self.dir.join("docker.sock")
    }

    /// Returns the path of its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// Returns a client of its API.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine::at(self.socket())
    }
}

/// Returns whether a mount is Docker's own and of no container: it pins the node's network namespace once a container
/// has used it.
#[must_use]
pub fn is_its_own(point: &Path) -> bool {
    point.ends_with("exec/netns/default")
}

/// Returns the major version of dockerd.
///
/// # Errors
/// There is no dockerd, or it does not say its version.
pub fn major_version() -> Result<u32> {
    let version = process::text(tools::command("dockerd")?.arg("--version"))?;
    let major = version.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("dockerd says its version is {version:?}"))
}

/// Creates the bridge: dockerd expects one that exists.
fn bridge(names: &Names) -> Result<()> {
    let ip = |arguments: &[&str]| process::text(tools::command("ip")?.args(arguments)).map(drop);
    let link = &names.bridge;
    ip(&["link", "add", link, "type", "bridge"])?;
    ip(&["address", "add", &format!("{}.1/24", names.prefix), "dev", link])?;
    ip(&["link", "set", link, "up"])
}
