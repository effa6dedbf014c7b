//! The layout of K3s on a node, built in a directory: programs, socket, data. Its containerd is a real one; K3s itself
//! is a process that has its name and does nothing.

use std::{
    fs,
    os::unix::{fs::symlink, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};

use crate::{
    Node,
    ctr::{self, Ctr, Running},
    pods::on_node,
    proc, process,
    process::Process,
    remains::NODE,
    tools,
};

/// Name of the directory of unpacked programs: in K3s, a hash.
const UNPACKED: &str = "0123456789abcdef";

/// Layout of K3s, and its process if that runs.
#[derive(Debug)]
pub struct K3s {
    dir: PathBuf,
    process: Option<Process>,
}

impl K3s {
    /// Builds the layout below `dir`; starts nothing.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn build(dir: &Path) -> Result<Self> {
        let k3s = Self { dir: dir.to_path_buf(), process: None };
        let programs = k3s.data().join("data").join(UNPACKED).join("bin");
        let made = [programs.clone(), k3s.state(), k3s.data().join("agent/images"), k3s.manifests()];
        for path in made {
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        for program in ["containerd", "containerd-shim-runc-v2", "runc"] {
            let Some(path) = tools::find(program)? else { bail!("{program} is not installed; run `cargo xtask test`") };
            symlink(&path, programs.join(program)).with_context(|| format!("cannot link {program}"))?;
        }
        // K3s is one file with many names; it is recognised by the path that the kernel shows for it.
        let sleep = tools::find("sleep")?.context("sleep is not installed")?;
        fs::copy(&sleep, programs.join("k3s")).context("cannot copy sleep")?;
        symlink(UNPACKED, k3s.data().join("data/current")).context("cannot link data/current")?;
        Ok(k3s)
    }

    /// Returns its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Returns the state directory of its containerd, which is below `/run` on a real node.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("run/containerd")
    }

    /// Returns the socket of its containerd.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// Returns the directory of its kubelet's static pods.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.data().join("agent/pod-manifests")
    }

    /// Returns the directory of its unpacked programs.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.data().join("data/current/bin")
    }

    /// Starts the process that looks like `k3s agent`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_process(&mut self) -> Result<()> {
        let mut command = Command::new(self.programs().join("k3s"));
        let node = self.dir.parent().context("K3s is in the directory of a node")?;
        command.arg0("k3s-agent").arg("86400").env(NODE, node);
        self.process = Some(Process::start("k3s-agent", &mut command, &self.dir.join("k3s.log"))?);
        Ok(())
    }

    /// Kills that process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn end_process(&mut self) -> Result<()> {
        let mut process = self.process.take().context("K3s does not run")?;
        process.signal(Signal::KILL)?;
        process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Does what `k3s-killall.sh` does, within this layout: kills every shim whose program is K3s's, with its children,
    /// in any namespace; unmounts and deletes everything below K3s's directory in `/run`. (The script also removes the
    /// machine's network namespaces, links and packet filter rules with CNI's names, and `/var/lib/cni`: the test pods
    /// have none there.)
    ///
    /// # Errors
    /// When `/proc` cannot be read, or a mount or a directory cannot be removed.
    pub fn kill_all(&self) -> Result<()> {
        // The script finds shims by the path of their program, below data/*/bin. Here that is a link to Debian's
        // program, which is the path in their command line, so they are found by the daemon's address.
        let of_k3s = format!(" -address {}/", self.dir.join("run").display());
        let all = proc::processes()?;
        let shims = all.iter().filter(|seen| {
            let program = seen.command.split_whitespace().next().unwrap_or_default();
            program.contains("/bin/containerd-shim") && format!("{} ", seen.command).contains(&of_k3s)
        });
        for shim in shims {
            for pid in tree(shim.pid) {
                // The process may have ended with its parent.
                process::kill(pid).ok();
            }
        }
        let run = self.dir.join("run");
        for point in proc::mounts_below(&run)?.into_iter().rev() {
            unmount(&point, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
        }
        fs::remove_dir_all(&run).with_context(|| format!("cannot remove {}", run.display()))?;
        fs::create_dir_all(self.state()).context("cannot create K3s's state directory again")
    }

    /// Leaves K3s's containerd as a reboot does: none of its processes runs, and `/run` is empty.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or a mount or a directory cannot be removed.
    pub fn reboot(&self) -> Result<()> {
        ensure!(self.process.is_none(), "K3s runs");
        self.kill_all()
    }
}

/// Returns a process and all its descendants.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        // Each thread has its own list of children.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
        let children = children.collect::<String>();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    found
}

/// Returns the K3s of a node that has one.
///
/// # Errors
/// When it has none.
pub fn k3s(node: &mut Node) -> Result<&mut K3s> {
    node.k3s.as_mut().context("a node with K3s")
}

/// Returns the pod's running containers on a containerd.
fn of_pod(ctr: &Ctr, pod: &str) -> Result<Vec<Running>> {
    Ok(ctr::of_pod(ctr.running()?, &on_node(pod)))
}

/// Waits until the pod runs on a containerd, and returns its one container.
///
/// # Errors
/// When this does not happen in time.
pub fn runs_on(node: &Node, ctr: &Ctr, pod: &str) -> Result<Running> {
    let mut running = node.await_running_by(pod, || of_pod(ctr, pod))?;
    ensure!(running.len() == 1, "{} containers run", running.len());
    running.pop().context("a list of one is empty")
}

/// Checks that no container of the pod runs on this containerd.
///
/// # Errors
/// When one does.
pub fn runs_not_on(ctr: &Ctr, pod: &str) -> Result<()> {
    let running = of_pod(ctr, pod)?;
    ensure!(running.is_empty(), "it runs there too (I1): {running:?}");
    Ok(())
}

/// Waits until the pod runs on a containerd, and returns its container. Checks that it does not start before `before`
/// has ended.
///
/// # Errors
/// When the container does not start in time, or starts too early.
pub fn follows(node: &Node, before: &Running, ctr: &Ctr, pod: &str) -> Result<Running> {
    node.until(&format!("pod {pod} to run after {}", before.record.id), || {
        let alive = proc::alive(before.pid);
        let there = of_pod(ctr, pod)?;
        // In this order of looks, two that ran at once would both be seen.
        ensure!(!alive || there.is_empty(), "it runs twice (I1): {there:?}");
        there.into_iter().next().context("not yet")
    })
}

/// Checks that a container was not ended.
///
/// # Errors
/// When it was ended.
pub fn is_as_it_was(before: &Running) -> Result<()> {
    let now = proc::started(before.pid).ok();
    ensure!(now == Some(before.started), "{} was ended (I3)", before.record.id);
    Ok(())
}
