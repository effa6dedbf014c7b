//! A dockerd and a registry for one test, and the backend on them.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use stanchion_docker::{Config, Docker};
use stanchion_runtime::NodePaths;
use stanchion_tests::{
    containerd::Containerd,
    docker::{self, Engine},
    fixtures::Fixtures,
    proc,
    registry::Registry,
    remains,
    slot::{Kind, Names, Slot},
    until,
};

/// Longest wait for something that takes moments.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Everything a test needs; removed on drop.
pub struct Bed {
    /// The backend under test.
    pub backend: Docker,
    /// The daemon.
    pub docker: docker::Docker,
    /// Reference of an image with a busybox, in the registry.
    pub image: String,
    /// The images.
    pub fixtures: Fixtures,
    _containerd: Containerd,
    /// The registry.
    pub registry: Registry,
    // Last: its drop removes what the others leave.
    slot: Slot,
}

impl Bed {
    /// Starts daemons and registry, and opens the backend. The image is not pulled.
    pub fn new() -> Result<Self> {
        let slot = Slot::take(Kind::Test)?;
        let names = slot.names();
        let fixtures = Fixtures::prepare()?;
        let registry = Registry::start(&names.dir, &fixtures.registry())?;
        let containerd = Containerd::start(&names.dir.join("containerd"))?;
        let docker = docker::Docker::start(&names.dir.join("docker"), names, &containerd.socket(), None)?;
        let image = format!("{}/library/busybox:latest", registry.address());
        std::fs::create_dir(names.dir.join("logs")).context("making the directory of the logs")?;
        let backend = open(names, &docker, json!({}))?;
        Ok(Self { backend, docker, image, fixtures, _containerd: containerd, registry, slot })
    }

    /// Opens another backend on the same Docker, with these settings in place of the first one's.
    pub fn open(&self, settings: Value) -> Result<Docker> {
        open(self.names(), &self.docker, settings)
    }

    /// Returns the names on the machine.
    pub fn names(&self) -> &Names {
        self.slot.names()
    }

    /// Returns a path in its directory.
    pub fn path(&self, sub: &str) -> PathBuf {
        self.names().dir.join(sub)
    }

    /// Returns Docker's own client.
    pub fn engine(&self) -> Engine {
        self.docker.engine()
    }

    /// Lists everything on the machine and in Docker that a pod leaves when it is not removed completely.
    pub fn remains(&self) -> Result<Vec<String>> {
        let names = self.names();
        let mut found = Vec::new();
        let mut add = |what: &str, all: Vec<String>| found.extend(all.iter().map(|one| format!("{what} {one}")));
        add("container", self.engine().containers()?);
        add("volume", self.engine().volumes()?);
        let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
        let of_containers = |path: &PathBuf| {
            path.ends_with("merged") || path.to_string_lossy().contains("/netns/") && !docker::is_its_own(path)
        };
        add("mount", shown(proc::mounts_below(&names.dir)?.into_iter().filter(of_containers).collect()));
        let cgroups = proc::cgroups(&names.cgroup)?;
        add("cgroup", shown(cgroups.into_iter().filter(|it| !it.ends_with(names.cgroup.trim_matches('/'))).collect()));
        add("link", remains::links(names, false)?);
        let shims = remains::processes(names)?.into_iter().filter(|seen| seen.command.contains("shim"));
        add("process", shims.map(|seen| seen.command).collect());
        Ok(found)
    }

    /// Waits until nothing is left: the kernel takes a moment for some of it.
    pub fn nothing_left(&self) -> Result<()> {
        until("nothing to be left", PATIENCE, || {
            let left = self.remains()?;
            ensure!(left.is_empty(), "there is {left:#?}");
            Ok(())
        })
    }
}

fn open(names: &Names, docker: &docker::Docker, settings: Value) -> Result<Docker> {
    let mut table = json!({ "socket": docker.socket(), "namespace": names.namespace, "cgroup_root": names.cgroup });
    for (key, value) in settings.as_object().into_iter().flatten() {
        table[key] = value.clone();
    }
    let config: Config = serde_json::from_value(table)?;
    let node = NodePaths { run_dir: names.dir.join("run"), ..NodePaths::default() };
    Docker::new(config, &node).map_err(said)
}

/// Converts an error with all its causes.
pub fn said(error: stanchion_runtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{:?}: {}", error.kind(), error.chain())
}
