//! Yardstick: `ctr run -d` of the same image and command; on Docker two `docker run -d`, of which the second joins the
//! network of the first, as a pod's container joins its sandbox.

use std::{
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
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
        let containers = containers(self.on, id);
        let mut took = Vec::new();
        for (id, joined) in &containers {
            let (at, mut child) = self.launch(id, joined.as_deref())?;
            let start = events.next(self.namespace(), "/tasks/start")?.at;
            ensure!(child.wait()?.success(), "starting {id} failed");
            took.push(millis(at, start));
        }
        let container = took.last().copied().context("a pod has containers")?;
        let mut stop = 0.0;
        for (id, _) in containers.iter().rev() {
            let term = Timestamp::now();
            self.kill("SIGTERM", id)?;
            let exit = events.next(self.namespace(), "/tasks/exit")?.at;
            // The container that was started last ends first, and its time counts.
            stop = if stop == 0.0 { millis(term, exit) } else { stop };
            self.remove(id)?;
        }
        Ok(Once { pod: took.iter().sum(), container, stop })
    }

    /// Starts the containers of `n` pods on each runtime at the same time, but those of one pod one after the other:
    /// the second cannot join the first before that runs. Returns the time from the first launch to the last start, in
    /// milliseconds.
    pub fn many(on: &[&Self], n: usize, events: &Events) -> Result<f64> {
        let pods: Vec<_> = (0..n)
            .flat_map(|i| on.iter().map(move |plain| (*plain, containers(plain.on, &format!("many-{i}")))))
            .collect();
        let first = thread::scope(|scope| {
            let launched: Vec<_> =
                pods.iter().map(|(plain, containers)| scope.spawn(move || plain.start(containers))).collect();
            let joined = launched.into_iter().map(|pod| pod.join().map_err(|_| anyhow!("a launch panicked"))?);
            joined.collect::<Result<Vec<_>>>()
        })?;
        let first = first.into_iter().min().context("n is at least 1")?;
        let namespaces: Vec<_> = on.iter().map(|plain| plain.namespace()).collect();
        let all = || pods.iter().flat_map(|(plain, containers)| containers.iter().map(move |(id, _)| (plain, id)));
        let mut last = first;
        for _ in all() {
            last = last.max(events.next_of(&namespaces, "/tasks/start")?.at);
        }
        for (plain, id) in all() {
            plain.kill("SIGKILL", id)?;
            events.next(plain.namespace(), "/tasks/exit")?;
            plain.remove(id)?;
        }
        Ok(millis(first, last))
    }

    /// Starts the containers of one pod, and returns when the first was launched.
    fn start(&self, containers: &[(String, Option<String>)]) -> Result<Timestamp> {
        let mut first = None;
        for (id, joined) in containers {
            let (at, mut child) = self.launch(id, joined.as_deref())?;
            first.get_or_insert(at);
            ensure!(child.wait()?.success(), "starting {id} failed");
        }
        first.context("a pod has containers")
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

/// Returns the containers that stand for one pod: the name of each, and of the one whose network it joins.
fn containers(on: Backend, pod: &str) -> Vec<(String, Option<String>)> {
    let own = pod.to_owned();
    match on {
        Backend::Containerd | Backend::K3s => vec![(own, None)],
        Backend::Docker => {
            let first = format!("{pod}-first");
            vec![(first.clone(), None), (own, Some(first))]
        }
    }
}

/// Returns the milliseconds between two moments.
pub fn millis(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use stanchion_tests::Backend;

    use super::containers;

    #[test]
    fn on_docker_the_second_container_joins_the_first() {
        let first = || "web-first".to_owned();
        assert_eq!(containers(Backend::Docker, "web"), [(first(), None), ("web".to_owned(), Some(first()))]);
        assert_eq!(containers(Backend::Containerd, "web"), [("web".to_owned(), None)]);
    }
}
