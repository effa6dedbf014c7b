//! Remains of pods on a node: none, when all is well (I6).

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::Node;
use crate::{
    docker::{self, Docker},
    proc,
    registry::Registry,
    remains,
    view::View,
};

impl Node {
    /// Returns everything that a pod could have left on this machine: empty when no pod is there (I6).
    ///
    /// # Errors
    /// When one of the places cannot be read.
    pub fn remains(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut note = |what: &str, things: Vec<String>| {
            found.extend(things.into_iter().map(|thing| format!("{what} {thing}")));
        };
        for view in self.views() {
            match view {
                View::Containerd(ctr) => {
                    note("task", ctr.tasks()?);
                    note("container", ctr.containers()?);
                    note("snapshot", ctr.working_snapshots()?);
                }
                View::Docker(engine) => {
                    note("container", engine.containers()?);
                    note("volume", engine.volumes()?);
                }
            }
        }
        note("process", self.strangers()?);
        let new = |point: &PathBuf| !self.mounts.contains(point) && !docker::is_its_own(point);
        note("mount", shown(proc::mounts_below(&self.names.dir)?.into_iter().filter(new)));
        let below_root = |group: &PathBuf| !group.ends_with(self.names.cgroup.trim_start_matches('/'));
        note("cgroup", shown(proc::cgroups(&self.names.cgroup)?.into_iter().filter(below_root)));
        note("runc record", shown(remains::runc_records(&self.names)));
        note("link", remains::links(&self.names, false)?);
        note("packet filter rule", remains::rules(&self.names)?);
        note("pod directory", shown(entries(&self.path("state/pods"))?));
        note("log directory", shown(entries(&self.path("logs"))?));
        let of_pods = |path: &PathBuf| !is_the_agents(path);
        note("runtime file", shown(remains::files(&self.path("run")).into_iter().filter(of_pods)));
        found.extend(self.half_made()?);
        Ok(found)
    }

    /// Waits until nothing of any pod is left.
    ///
    /// # Errors
    /// When something is left.
    pub fn await_nothing_left(&self) -> Result<()> {
        self.await_nothing_left_but("", |_| false)
    }

    /// Waits until nothing of any pod is left, except what `allowed` accepts, for the reason `why`.
    ///
    /// # Errors
    /// When something is left.
    pub fn await_nothing_left_but(&self, why: &str, allowed: impl Fn(&str) -> bool) -> Result<()> {
        self.until("nothing to be left of any pod (I6)", || {
            let (fine, found): (Vec<_>, Vec<_>) = self.remains()?.into_iter().partition(|thing| allowed(thing));
            fine.iter().for_each(|thing| println!("{thing}: {why}"));
            if found.is_empty() { Ok(()) } else { Err(anyhow!("still there:\n  {}", found.join("\n  "))) }
        })
    }

    /// Waits until the runtime has no remains of a failed pull.
    ///
    /// # Errors
    /// When something is left.
    pub fn await_nothing_half_made(&self) -> Result<()> {
        self.until("nothing half-made to be left", || {
            let left = self.half_made()?;
            ensure!(left.is_empty(), "there is {left:?}");
            Ok(())
        })
    }

    /// Returns unfinished downloads, and the leases that keep them.
    fn half_made(&self) -> Result<Vec<String>> {
        let (leases, downloads) = match self.view() {
            View::Containerd(ctr) => (ctr.leases()?, ctr.active_ingests()?),
            View::Docker(_) => {
                // Newer dockerds leave the directory in which they tried, at their start, whether the kernel can mount
                // read-only.
                let mut files = entries(&self.path("docker/data/tmp"))?;
                files.retain(|file| !file.to_string_lossy().contains("moby-detect-rro"));
                (Vec::new(), shown(files))
            }
        };
        let leases = leases.into_iter().map(|lease| format!("lease {lease}"));
        Ok(leases.chain(downloads.into_iter().map(|download| format!("unfinished download {download}"))).collect())
    }

    /// Returns the processes of this node that the test did not start.
    fn strangers(&self) -> Result<Vec<String>> {
        let docker = self.docker.as_ref().and_then(Docker::id);
        let own = [self.agent.id(), self.containerd.id(), docker, self.registry.as_ref().map(Registry::id)];
        let seen = remains::processes(&self.names)?;
        let strangers = seen.into_iter().filter(|seen| !own.contains(&Some(seen.pid)));
        Ok(strangers.map(|seen| format!("{} {}", seen.pid, seen.command)).collect())
    }
}

fn shown(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.display().to_string()).collect()
}

/// Returns whether a path is a file of the agent itself: its socket, a lock, or the start of the search for the next
/// address.
fn is_the_agents(path: &Path) -> bool {
    let is_lock = path.extension().is_some_and(|extension| extension == "lock");
    is_lock || path.file_name().is_some_and(|name| ["stanchion.sock", "lock", "last"].iter().any(|own| name == *own))
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>().context("cannot list a directory")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", dir.display())),
    }
}
