//! A dockerd of the node's own: own data, state and socket, on a containerd of its own, without packet filter rules.

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

/// The daemon, running or stopped.
#[derive(Debug)]
pub struct Docker {
    dir: PathBuf,
    daemon: Daemon,
}

impl Docker {
    /// Starts one that keeps everything in `dir`, with its containers on the bridge of `names`, and waits until it
    /// answers. `containerd` is the socket of the containerd below it, `mirror` what stands for Docker Hub.
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
            // No other containerd of the machine, no other node's: it is the one above.
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
        // Before that it makes itself precious, which not every machine lets it; since then it leaves that to systemd.
        if major_version()? < 25 {
            settings["oom-score-adjust"] = 0.into();
        }
        // Newer ones, told to read their configuration again, do not know it any more.
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

    /// Makes containers run on while it is away: its live-restore, which it reads again when it is told to.
    ///
    /// # Errors
    /// When its configuration cannot be written, or it does not heed it.
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
        // One that was killed leaves it, and its pid may be another's by now.
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

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.daemon.id()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        self.daemon.log()
    }

    /// What it says.
    #[must_use]
    pub fn engine(&self) -> Engine {
        Engine::at(self.socket())
    }
}

/// Whether a mount is Docker's own, and of no container: it keeps the node's network namespace under a name once a
/// container has used it.
#[must_use]
pub fn is_its_own(point: &Path) -> bool {
    point.ends_with("exec/netns/default")
}

/// The first number of dockerd's version.
fn major_version() -> Result<u32> {
    let version = process::text(tools::command("dockerd")?.arg("--version"))?;
    let major = version.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse().ok());
    major.with_context(|| format!("dockerd says its version is {version:?}"))
}

/// Docker wants a bridge that is there.
fn bridge(names: &Names) -> Result<()> {
    let ip = |arguments: &[&str]| process::text(tools::command("ip")?.args(arguments)).map(drop);
    let link = &names.bridge;
    ip(&["link", "add", link, "type", "bridge"])?;
    ip(&["address", "add", &format!("{}.1/24", names.prefix), "dev", link])?;
    ip(&["link", "set", link, "up"])
}
