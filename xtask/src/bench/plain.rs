//! Yardstick: `ctr run -d` of the same image and command; on Docker two `docker run -d`, of which the second joins the
//! network of the first, as a pod's container joins its sandbox.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use stanchion_tests::{Backend, Node, docker, events::Events, pods::IDLE, process::text, tools};

/// Runtime's own client, with the image pulled.
#[derive(Debug)]
pub struct Plain<'a> {
    node: &'a Node,
    on: Backend,
    image: String,
}

/// Times of one pod's containers, milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Once {
    /// From launch to start, sum over the pod's containers.
    pub pod: f64,
    /// From launch to start of the last container.
    pub container: f64,
    /// From SIGTERM to exit of the last container.
    pub stop: f64,
}

impl<'a> Plain<'a> {
    /// Pulls the image.
    pub fn new(node: &'a Node, on: Backend) -> Result<Self> {
        let plain = Self { node, on, image: node.in_registry("busybox:latest")? };
        plain.run(&match on {
            Backend::Containerd | Backend::K3s => vec!["images", "pull", "--plain-http", &plain.image],
            Backend::Docker => vec!["pull", &plain.image],
        })?;
        Ok(plain)
    }

    /// Starts and stops one pod's containers, one after the other.
    pub fn once(&self, id: &str, events: &Events) -> Result<Once> {
        let ids = self.ids(id);
        let mut took = Vec::new();
        for (i, id) in ids.iter().enumerate() {
            let joined = i.checked_sub(1).map(|before| ids[before].as_str());
            let (at, mut child) = self.launch(id, joined)?;
            let start = events.next(self.namespace(), "/tasks/start")?.at;
            ensure!(child.wait()?.success(), "starting {id} failed");
            took.push(millis(at, start));
        }
        let container = took.last().copied().context("a pod has containers")?;
        let mut stop = 0.0;
        for id in ids.iter().rev() {
            let term = Timestamp::now();
            self.kill("SIGTERM", id)?;
            let exit = events.next(self.namespace(), "/tasks/exit")?.at;
            // The container that was started last ends first, and its time counts.
            stop = if stop == 0.0 { millis(term, exit) } else { stop };
            self.remove(id)?;
        }
        Ok(Once { pod: took.iter().sum(), container, stop })
    }

    /// Starts the containers of `n` pods on each runtime at the same time; returns the time from the first launch to
    /// the last start, in milliseconds.
    pub fn many(on: &[&Self], n: usize, events: &Events) -> Result<f64> {
        let pods = (0..n).flat_map(|i| on.iter().map(move |plain| (*plain, format!("many-{i}"))));
        let ids: Vec<_> =
            pods.flat_map(|(plain, pod)| plain.ids(&pod).into_iter().map(move |id| (plain, id))).collect();
        let launched = ids.iter().map(|(plain, id)| plain.launch(id, None)).collect::<Result<Vec<_>>>()?;
        let first = launched.first().context("n is at least 1")?.0;
        let namespaces: Vec<_> = on.iter().map(|plain| plain.namespace()).collect();
        let mut last = first;
        for _ in &ids {
            last = last.max(events.next_of(&namespaces, "/tasks/start")?.at);
        }
        for (_, mut child) in launched {
            ensure!(child.wait()?.success(), "starting one of many failed");
        }
        for (plain, id) in &ids {
            plain.kill("SIGKILL", id)?;
            events.next(plain.namespace(), "/tasks/exit")?;
            plain.remove(id)?;
        }
        Ok(millis(first, last))
    }

    /// Returns the names of the containers that stand for one pod.
    fn ids(&self, id: &str) -> Vec<String> {
        match self.on {
            Backend::Containerd | Backend::K3s => vec![id.to_owned()],
            Backend::Docker => vec![format!("{id}-first"), id.to_owned()],
        }
    }

    /// Starts the client for one container; returns the moment and the client's process.
    fn launch(&self, id: &str, joined: Option<&str>) -> Result<(Timestamp, Child)> {
        let cgroup = format!("{}/{id}", self.node.names().cgroup);
        let network = joined.map_or_else(|| "bridge".to_owned(), |other| format!("container:{other}"));
        let options = match self.on {
            Backend::Containerd | Backend::K3s => ["run", "--detach", "--cgroup", &cgroup, &self.image, id],
            Backend::Docker => ["run", "--detach", "--network", &network, "--name", id],
        };
        let mut command = self.command()?;
        command.args(options);
        if self.on == Backend::Docker {
            command.arg(&self.image);
        }
        command.args(["sh", "-c", IDLE]).stdout(Stdio::null());
        let at = Timestamp::now();
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok((at, child))
    }

    fn kill(&self, signal: &str, id: &str) -> Result<()> {
        self.run(&match self.on {
            Backend::Containerd | Backend::K3s => vec!["tasks", "kill", "--signal", signal, id],
            Backend::Docker => vec!["kill", "--signal", signal, id],
        })
    }

    fn remove(&self, id: &str) -> Result<()> {
        match self.on {
            Backend::Containerd | Backend::K3s => {
                self.run(&["tasks", "delete", id])?;
                self.run(&["containers", "delete", id])
            }
            Backend::Docker => self.run(&["rm", "--force", id]),
        }
    }

    /// Returns the containerd namespace of the containers.
    fn namespace(&self) -> &'static str {
        match self.on {
            Backend::Containerd | Backend::K3s => "bench",
            Backend::Docker => docker::NAMESPACE,
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        text(self.command()?.args(arguments)).map(drop)
    }

    fn command(&self) -> Result<Command> {
        match self.on {
            Backend::Containerd | Backend::K3s => self.node.containerd.ctr(self.namespace()).command(&[]),
            Backend::Docker => {
                let docker = self.node.docker.as_ref().context("the node has no Docker")?;
                let mut command = tools::command("docker")?;
                command.arg("--host").arg(format!("unix://{}", docker.socket().display()));
                Ok(command)
            }
        }
    }
}

/// Returns the milliseconds between two moments.
pub fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}
