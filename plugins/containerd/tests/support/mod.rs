//! A containerd and a registry for one test, and the backend on them.

#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(clippy::disallowed_methods, reason = "a test measures")]

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use stanchion_containerd::{Config, Containerd};
use stanchion_runtime::NodePaths;
use stanchion_tests::{
    containerd,
    ctr::Ctr,
    fixtures::Fixtures,
    proc,
    registry::Registry,
    remains,
    slot::{Kind, Names, Slot},
    tools,
};

/// Longest wait for something that takes moments.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// Everything a test needs; removed on drop.
pub struct Bed {
    /// The backend under test.
    pub backend: Containerd,
    /// The daemon.
    pub containerd: containerd::Containerd,
    /// Reference of an image with a busybox, in the registry.
    pub image: String,
    _registry: Registry,
    // Last: its drop removes what the others leave.
    slot: Slot,
}

impl Bed {
    /// Starts daemon and registry, and opens the backend. The image is not pulled.
    pub fn new() -> Result<Self> {
        let slot = Slot::take(Kind::Test)?;
        let names = slot.names();
        let registry = Registry::start(&names.dir, &fixtures()?.registry())?;
        let containerd = containerd::Containerd::start(&names.dir.join("containerd"))?;
        let image = format!("{}/library/busybox:latest", registry.address());
        std::fs::create_dir(names.dir.join("logs")).context("making the directory of the logs")?;
        let backend = open(names, &containerd)?;
        Ok(Self { backend, containerd, image, _registry: registry, slot })
    }

    /// Returns the names on the machine.
    pub fn names(&self) -> &Names {
        self.slot.names()
    }

    /// Returns a path in its directory.
    pub fn path(&self, sub: &str) -> PathBuf {
        self.names().dir.join(sub)
    }

    /// Returns containerd's own client.
    pub fn ctr(&self) -> Ctr {
        self.containerd.ctr(&self.names().namespace)
    }

    /// Lists everything on the machine and in containerd that a pod leaves when it is not removed completely. Omits
    /// what the image and the network as a whole need.
    pub fn remains(&self) -> Result<Vec<String>> {
        let (ctr, names) = (self.ctr(), self.names());
        let mut found = Vec::new();
        let mut add = |what: &str, all: Vec<String>| found.extend(all.iter().map(|one| format!("{what} {one}")));
        add("task", ctr.tasks()?);
        add("record", ctr.containers()?);
        add("snapshot", ctr.working_snapshots()?);
        let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
        add("mount", shown(proc::mounts_below(&names.dir)?));
        let cgroups = proc::cgroups(&names.cgroup)?;
        add("cgroup", shown(cgroups.into_iter().filter(|it| !it.ends_with(names.cgroup.trim_matches('/'))).collect()));
        add("link", remains::links(names, false)?);
        add("rule", remains::rules(names)?);
        let run = self.path("run");
        let is_the_backends = |path: &PathBuf| path.file_name().is_some_and(|name| name == "last" || name == "lock");
        let files = remains::files(&run).into_iter().filter(|path| !is_the_backends(path));
        add("file", shown(files.collect()));
        let shims = remains::processes(names)?.into_iter().filter(|seen| seen.command.contains("shim"));
        add("process", shims.map(|seen| seen.command).collect());
        Ok(found)
    }

    /// Waits until nothing is left: the kernel takes a moment for some of it.
    pub async fn nothing_left(&self) -> Result<()> {
        eventually("nothing to be left", async || {
            let left = self.remains()?;
            ensure!(left.is_empty(), "there is {left:#?}");
            Ok(())
        })
        .await
    }
}

/// Makes the images, for one test at a time.
fn fixtures() -> Result<Fixtures> {
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Fixtures::prepare()
}

fn open(names: &Names, containerd: &containerd::Containerd) -> Result<Containerd> {
    let table = json!({
        "socket": containerd.socket(),
        "namespace": names.namespace,
        "cgroup_root": names.cgroup,
        "logger": logger()?,
        "network": { "bridge": names.bridge, "subnet": names.subnet() },
    });
    let config: Config = serde_json::from_value(table)?;
    let paths = NodePaths {
        node_name: "node".to_owned(),
        state_dir: names.dir.join("state"),
        run_dir: names.dir.join("run"),
        log_dir: names.dir.join("logs"),
        libexec_dir: names.dir.join("libexec"),
    };
    Containerd::new(config, &paths).map_err(said)
}

/// Returns the logger, built now if need be: cargo builds no program of another package for a test.
fn logger() -> Result<PathBuf> {
    static BUILT: std::sync::OnceLock<std::result::Result<PathBuf, String>> = std::sync::OnceLock::new();
    let build = || {
        let dir = tools::target_dir()?;
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "stanchion-logger", "--target-dir"])
            .arg(&dir)
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "building stanchion-logger failed");
        Ok(dir.join("debug/stanchion-logger"))
    };
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Converts an error with all its causes.
pub fn said(error: stanchion_runtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", error.kind(), error.chain())
}

/// Calls `look` until it succeeds. Returns its last error when that takes too long.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Err(why) if tokio::time::Instant::now() > deadline => return Err(why.context(format!("waited for {what}"))),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            seen => return seen,
        }
    }
}
