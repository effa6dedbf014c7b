//! The yardstick: `ctr run -d` of the same image and command.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use stanchion_tests::{Node, ctr::Ctr, events::Events, pods::IDLE};

/// Namespace of the yardstick's containers.
pub const NAMESPACE: &str = "bench";

/// `ctr` with the image pulled.
#[derive(Debug)]
pub struct Plain<'a> {
    ctr: Ctr,
    node: &'a Node,
    image: String,
}

impl<'a> Plain<'a> {
    /// Pulls the image.
    pub fn new(node: &'a Node) -> Result<Self> {
        let registry = node.registry.as_ref().context("the benchmark has a registry")?;
        let image = format!("{}/library/busybox:latest", registry.address());
        let ctr = node.containerd.ctr(NAMESPACE);
        ctr.run(&["images", "pull", "--plain-http", &image])?;
        Ok(Self { ctr, node, image })
    }

    /// Starts `ctr run -d`; the answer is when, and the program.
    fn launch(&self, id: &str) -> Result<(Timestamp, Child)> {
        let cgroup = format!("{}/{id}", self.node.names().cgroup);
        let arguments = ["run", "--detach", "--cgroup", &cgroup, &self.image, id, "sh", "-c", IDLE];
        let mut command = self.ctr.command(&arguments)?;
        let at = Timestamp::now();
        let child = command.stdout(Stdio::null()).spawn().context("cannot start ctr run")?;
        Ok((at, child))
    }

    /// One container: times from launch to start, and from SIGTERM to exit, in milliseconds.
    pub fn once(&self, id: &str, events: &Events) -> Result<(f64, f64)> {
        let (at, mut child) = self.launch(id)?;
        let start = events.next(NAMESPACE, "/tasks/start")?.at;
        ensure!(child.wait()?.success(), "ctr run failed");
        let term = Timestamp::now();
        self.ctr.run(&["tasks", "kill", "--signal", "SIGTERM", id])?;
        let exit = events.next(NAMESPACE, "/tasks/exit")?.at;
        self.remove(id)?;
        Ok((millis(at, start), millis(term, exit)))
    }

    /// `n` at the same time: from the first launch to the last start, in milliseconds.
    pub fn many(&self, n: usize, events: &Events) -> Result<f64> {
        let launched = (0..n).map(|i| self.launch(&format!("many-{i}"))).collect::<Result<Vec<_>>>()?;
        let first = launched.first().context("n is at least 1")?.0;
        let mut last = first;
        for _ in 0..n {
            last = last.max(events.next(NAMESPACE, "/tasks/start")?.at);
        }
        for (_, mut child) in launched {
            ensure!(child.wait()?.success(), "ctr run failed");
        }
        for i in 0..n {
            let id = format!("many-{i}");
            self.ctr.run(&["tasks", "kill", "--signal", "SIGKILL", &id])?;
            events.next(NAMESPACE, "/tasks/exit")?;
            self.remove(&id)?;
        }
        Ok(millis(first, last))
    }

    fn remove(&self, id: &str) -> Result<()> {
        self.ctr.run(&["tasks", "delete", id])?;
        self.ctr.run(&["containers", "delete", id]).map(drop)
    }
}

/// Milliseconds between two moments.
pub fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
