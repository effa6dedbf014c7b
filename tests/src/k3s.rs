//! What K3s has on a node, built in a directory: programs, socket, data. Its containerd is a real one; K3s itself is a
//! process that has its name and does nothing.

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

/// Name of the directory of unpacked programs: a hash in K3s.
const UNPACKED: &str = "0123456789abcdef";

/// The layout, and whether K3s runs.
#[derive(Debug)]
pub struct K3s {
    dir: PathBuf,
    process: Option<Process>,
}

impl K3s {
    /// Builds the layout below `dir`; nothing runs.
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
        // One file with many names, known by the path that the kernel shows of it.
        let sleep = tools::find("sleep")?.context("sleep is not installed")?;
        fs::copy(&sleep, programs.join("k3s")).context("cannot copy sleep")?;
        symlink(UNPACKED, k3s.data().join("data/current")).context("cannot link data/current")?;
        Ok(k3s)
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The state directory of its containerd, below `/run` on a real node.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("run/containerd")
    }

    /// The socket of its containerd.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("containerd.sock")
    }

    /// The directory of its kubelet's static pods.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.data().join("agent/pod-manifests")
    }

    /// The directory of the programs that it has unpacked.
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

    /// Ends it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn end_process(&mut self) -> Result<()> {
        let mut process = self.process.take().context("K3s does not run")?;
        process.signal(Signal::KILL)?;
        process.wait(Duration::from_secs(10)).map(drop)
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// What `k3s-killall.sh` does, within this layout: kills every shim whose program is K3s's, with its children,
    /// whatever its namespace; unmounts and deletes all below K3s's directory in `/run`. (Network namespaces, links and
    /// packet filter rules that have CNI's names, and `/var/lib/cni`, are the machine's: pods of ours have none there.)
    ///
    /// # Errors
    /// When something resists.
    pub fn kill_all(&self) -> Result<()> {
        // The script knows them by their program below data/*/bin. Here that is a link to Debian's, which their command line names:
        // they are known by the daemon that they report to.
        let of_k3s = format!(" -address {}/", self.dir.join("run").display());
        let all = proc::processes()?;
        let shims = all.iter().filter(|seen| {
            let program = seen.command.split_whitespace().next().unwrap_or_default();
            program.contains("/bin/containerd-shim") && format!("{} ", seen.command).contains(&of_k3s)
        });
        for shim in shims {
            for pid in tree(shim.pid) {
                // Its parent's end may have been its own.
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

    /// Leaves K3s's containerd behind as a reboot does: nothing that it ran runs, and `/run` is empty.
    ///
    /// # Errors
    /// When something resists.
    pub fn reboot(&self) -> Result<()> {
        ensure!(self.process.is_none(), "K3s runs");
        self.kill_all()
    }
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        // Any of its threads may have started one.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
        let children = children.collect::<String>();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    found
}

/// The K3s of a node that has one.
///
/// # Errors
/// When it has none.
pub fn k3s(node: &mut Node) -> Result<&mut K3s> {
    node.k3s.as_mut().context("a node with K3s")
}

/// The pod's containers on a containerd, as long as they run.
fn of_pod(ctr: &Ctr, pod: &str) -> Result<Vec<Running>> {
    Ok(ctr::of_pod(ctr.running()?, &on_node(pod)))
}

/// The pod's one container on a containerd, once it runs there.
///
/// # Errors
/// When it does not get there.
pub fn runs_on(node: &Node, ctr: &Ctr, pod: &str) -> Result<Running> {
    let mut running = node.await_running_by(pod, || of_pod(ctr, pod))?;
    ensure!(running.len() == 1, "{} containers run", running.len());
    running.pop().context("a list of one is empty")
}

/// Nothing of the pod runs on this containerd.
///
/// # Errors
/// When something does.
pub fn runs_not_on(ctr: &Ctr, pod: &str) -> Result<()> {
    let running = of_pod(ctr, pod)?;
    ensure!(running.is_empty(), "it runs there too (I1): {running:?}");
    Ok(())
}

/// The pod's container on a containerd, once there is one. It comes after `before` has ended.
///
/// # Errors
/// When it does not come, or too early.
pub fn follows(node: &Node, before: &Running, ctr: &Ctr, pod: &str) -> Result<Running> {
    node.until(&format!("pod {pod} to run after {}", before.record.id), || {
        let alive = proc::alive(before.pid);
        let there = of_pod(ctr, pod)?;
        // Looked at in this order, both would be seen if both ran.
        ensure!(!alive || there.is_empty(), "it runs twice (I1): {there:?}");
        there.into_iter().next().context("not yet")
    })
}

/// It runs as it did.
///
/// # Errors
/// When it was ended.
pub fn is_as_it_was(before: &Running) -> Result<()> {
    let now = proc::started(before.pid).ok();
    ensure!(now == Some(before.started), "{} was ended (I3)", before.record.id);
    Ok(())
}
