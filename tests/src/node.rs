//! A whole test node: runtime, registry, agent, and functions that read their state.

mod config;
mod left;

use std::{
    fmt::Debug,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    agent::{Agent, tail},
    containerd::Containerd,
    ctr::{Ctr, Running},
    docker::{self, Docker},
    fixtures::Fixtures,
    k3s::K3s,
    pods::{self, Pod},
    proc, process,
    proxy::Proxy,
    registry::Registry,
    slot::{Kind, Names, Slot},
    tools, until,
    view::{Backend, View},
};

/// Name of every test node: its pods are `<name>-node-1`.
pub const NODE_NAME: &str = "node-1";

/// Time limit for everything without a limit of its own; the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Options of a test node.
#[derive(Clone, Debug)]
pub struct NodeBuilder {
    kind: Kind,
    runtime: Backend,
    beside: Option<PathBuf>,
    programs: Option<PathBuf>,
    fixtures: bool,
    proxied: bool,
    credentials: Option<(String, String)>,
    disk: Option<String>,
    state_disk: Option<String>,
    runs_in_memory: bool,
    agent: String,
    backend: String,
    images: String,
    rest: String,
}

impl NodeBuilder {
    /// Describes a node with the fixture images in its registry.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let text = String::new;
        Self {
            kind,
            runtime: Backend::chosen(),
            beside: None,
            programs: None,
            fixtures: true,
            proxied: false,
            credentials: None,
            disk: None,
            state_disk: None,
            runs_in_memory: false,
            agent: text(),
            backend: text(),
            images: text(),
            rest: text(),
        }
    }

    /// Runs the pods on this runtime.
    #[must_use]
    pub fn on(mut self, runtime: Backend) -> Self {
        self.runtime = runtime;
        self
    }

    /// Runs pods on Docker, and those with `runtimeClassName: containerd` on containerd.
    #[must_use]
    pub fn mixed(mut self) -> Self {
        self.beside = Some(PathBuf::new());
        self.on(Backend::Docker)
    }

    /// Uses the programs of this directory; by default, those that were built with the running program.
    #[must_use]
    pub fn programs(mut self, dir: &Path) -> Self {
        self.programs = Some(dir.to_path_buf());
        self
    }

    /// Pulls from the real registries.
    #[must_use]
    pub fn public_registries(mut self) -> Self {
        self.fixtures = false;
        self
    }

    /// Keeps in memory the files that an installed node has in `/run`: sockets, pinned namespaces, the daemons' running
    /// state.
    #[must_use]
    pub fn runs_in_memory(mut self) -> Self {
        self.runs_in_memory = true;
        self
    }

    /// Puts a proxy in front of the registry, [`Node::proxy`].
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Configures credentials for the registry, or for the proxy in front of it.
    #[must_use]
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }

    /// Gives the runtime a disk of this size, e.g. `16m`.
    #[must_use]
    pub fn disk(mut self, size: &str) -> Self {
        self.disk = Some(size.to_owned());
        self
    }

    /// Keeps the agent's state on a tmpfs with these options.
    #[must_use]
    pub fn state_disk(mut self, options: &str) -> Self {
        self.state_disk = Some(options.to_owned());
        self
    }

    /// Adds lines to `[agent]`.
    #[must_use]
    pub fn agent(mut self, toml: &str) -> Self {
        self.agent.push_str(toml);
        self
    }

    /// Adds lines to the backend's table.
    #[must_use]
    pub fn backend(mut self, toml: &str) -> Self {
        self.backend.push_str(toml);
        self
    }

    /// Adds lines to `[images]`.
    #[must_use]
    pub fn images(mut self, toml: &str) -> Self {
        self.images.push_str(toml);
        self
    }

    /// Adds tables at the end of the configuration.
    #[must_use]
    pub fn tables(mut self, toml: &str) -> Self {
        self.rest.push_str(toml);
        self
    }

    /// Starts runtime and registry, and writes the configuration; does not start the agent.
    ///
    /// # Errors
    /// When something does not start; nothing is left then.
    pub fn without_agent(mut self) -> Result<Node> {
        let slot = Slot::take(self.kind)?;
        let names = slot.names().clone();
        let dir = &names.dir;
        for sub in ["manifests", "preload"] {
            fs::create_dir(dir.join(sub)).with_context(|| format!("cannot create {}", dir.join(sub).display()))?;
        }
        let fixtures = if self.fixtures { Some(Fixtures::prepare()?) } else { None };
        let registry = fixtures.as_ref().map(|images| Registry::start(dir, &images.registry())).transpose()?;
        if let Some(size) = &self.disk {
            mount_memory(&dir.join(self.runtime.name()), &format!("size={size}"))?;
        }
        if let Some(options) = &self.state_disk {
            mount_memory(&dir.join("state"), options)?;
        }
        if self.runs_in_memory {
            for sub in ["run", "containerd/state", "docker/exec"] {
                mount_memory(&dir.join(sub), "mode=0755")?;
            }
        }
        let k3s = match self.runtime {
            Backend::K3s => Some(K3s::build(&dir.join("k3s"))?),
            Backend::Containerd | Backend::Docker => None,
        };
        let containerd = match &k3s {
            Some(k3s) => Containerd::of_k3s(k3s)?,
            None => Containerd::start(&dir.join("containerd"))?,
        };
        let programs = match &self.programs {
            Some(dir) => dir.clone(),
            None => profile_dir()?,
        };
        let config = dir.join("stanchion.toml");
        let proxy = registry.as_ref().filter(|_| self.proxied).map(|it| Proxy::start(it.address())).transpose()?;
        let mirror = registry.as_ref().map(|registry| registry.address().to_owned());
        let mirror = proxy.as_ref().map(|proxy| proxy.address().to_owned()).or(mirror);
        let docker = match self.runtime {
            Backend::Containerd | Backend::K3s => None,
            Backend::Docker => {
                Some(Docker::start(&dir.join("docker"), &names, &containerd.socket(), mirror.as_deref())?)
            }
        };
        let socket = docker.as_ref().map_or_else(|| containerd.socket(), Docker::socket);
        let is_mixed = self.beside.is_some();
        self.beside = is_mixed.then(|| containerd.socket());
        let text = self.config(&names, &programs, &socket, mirror.as_deref());
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let agent = Agent::new(&programs, &config, &dir.join("agent.log"))?;
        let mounts = proc::mounts_below(&names.dir)?;
        Ok(Node { agent, registry, proxy, docker, k3s, containerd, fixtures, is_mixed, names, mounts, _slot: slot })
    }

    /// Starts runtime, registry and agent.
    ///
    /// # Errors
    /// When something does not start; nothing is left then.
    pub fn start(self) -> Result<Node> {
        let mut node = self.without_agent()?;
        node.agent.start()?;
        Ok(node)
    }

    /// Starts the node and runs a test on it; prints a dump of the node when the test fails.
    ///
    /// # Errors
    /// The error of `test`, or of the start.
    pub fn run(self, test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
        let mut node = self.start()?;
        let result = test(&mut node);
        if result.is_err() {
            eprintln!("{}", node.dump());
        }
        result
    }
}

/// Mounts a tmpfs with these options on a directory; creates the directory if it does not exist.
///
/// # Errors
/// When it cannot be made or mounted.
pub fn mount_memory(dir: &Path, options: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    process::text(tools::command("mount")?.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir)).map(drop)
}

/// Running node. Its drop ends and removes everything that belongs to it.
#[derive(Debug)]
pub struct Node {
    /// Agent and its command line.
    pub agent: Agent,
    /// Registry, on a node with fixtures.
    pub registry: Option<Registry>,
    /// Proxy in front of the registry, on a node with one.
    pub proxy: Option<Proxy>,
    /// Docker, on a node that uses it as its runtime.
    pub docker: Option<Docker>,
    /// K3s's layout, on a node that uses its containerd as its runtime.
    pub k3s: Option<K3s>,
    /// containerd: the runtime, or the daemon below Docker.
    pub containerd: Containerd,
    /// Images, on a node with fixtures.
    pub fixtures: Option<Fixtures>,
    // Whether some pods run on containerd beside Docker.
    is_mixed: bool,
    names: Names,
    // Mounts that existed before the agent started.
    mounts: Vec<PathBuf>,
    // The last field: its drop removes what the others leave.
    _slot: Slot,
}

impl Node {
    /// Describes a node for a test, with default options.
    #[must_use]
    pub fn builder() -> NodeBuilder {
        NodeBuilder::new(Kind::Test)
    }

    /// Returns its names on the machine.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns a path in its directory.
    #[must_use]
    pub fn path(&self, sub: &str) -> PathBuf {
        self.names.dir.join(sub)
    }

    /// Changes the size of the runtime's disk.
    ///
    /// # Errors
    /// When the node was not made with one.
    pub fn resize_disk(&self, size: &str) -> Result<()> {
        let options = format!("remount,size={size}");
        process::text(tools::command("mount")?.args(["-o", &options]).arg(self.path(self.runtime().name()))).map(drop)
    }

    /// Returns a client of containerd for the agent's namespace.
    #[must_use]
    pub fn ctr(&self) -> Ctr {
        self.containerd.ctr(&self.names.namespace)
    }

    /// Returns the runtime of its pods.
    #[must_use]
    pub fn runtime(&self) -> Backend {
        match (&self.docker, &self.k3s) {
            (Some(_), _) => Backend::Docker,
            (_, Some(_)) => Backend::K3s,
            _ => Backend::Containerd,
        }
    }

    /// Returns the full reference of a fixture image, e.g. of `redis:7`, in the node's registry, or in the proxy if
    /// there is one.
    ///
    /// # Errors
    /// When the node has no registry.
    pub fn in_registry(&self, image: &str) -> Result<String> {
        let proxy = self.proxy.as_ref().map(Proxy::address);
        let address = proxy.or_else(|| self.registry.as_ref().map(Registry::address));
        Ok(format!("{}/library/{image}", address.context("a node with a registry")?))
    }

    /// Returns the containerd namespace with the pods' tasks: on Docker, Docker's.
    #[must_use]
    pub fn task_namespace(&self) -> &str {
        match self.runtime() {
            Backend::Containerd | Backend::K3s => &self.names.namespace,
            Backend::Docker => docker::NAMESPACE,
        }
    }

    /// Returns a client of its runtime.
    #[must_use]
    pub fn view(&self) -> View {
        match &self.docker {
            Some(docker) => View::Docker(docker.engine()),
            None => View::Containerd(self.ctr()),
        }
    }

    /// Returns clients of all its runtimes.
    #[must_use]
    pub fn views(&self) -> Vec<View> {
        let beside = self.is_mixed.then(|| View::Containerd(self.ctr()));
        std::iter::once(self.view()).chain(beside).collect()
    }

    /// Ends the runtime's daemon with `signal`.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end_runtime(&mut self, signal: Signal) -> Result<ExitStatus> {
        match &mut self.docker {
            Some(docker) => docker.end(signal),
            None => self.containerd.end(signal),
        }
    }

    /// Starts the runtime's daemon again.
    ///
    /// # Errors
    /// When it does not start.
    pub fn resume_runtime(&mut self) -> Result<()> {
        match &mut self.docker {
            Some(docker) => docker.resume(),
            None => self.containerd.resume(),
        }
    }

    /// Returns the path of a manifest.
    #[must_use]
    pub fn manifest(&self, file: &str) -> PathBuf {
        self.path("manifests").join(file)
    }

    /// Puts a manifest in place by rename, as careful tools do.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let path = self.manifest(file);
        // The draft is beside the directory, so that the agent sees one event only.
        let draft = self.path(&format!("draft-{file}"));
        fs::write(&draft, content).with_context(|| format!("cannot write {}", draft.display()))?;
        fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes a manifest, if it exists.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, file: &str) -> Result<()> {
        match fs::remove_file(self.manifest(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {file}"))
            }
            _ => Ok(()),
        }
    }

    /// Returns a pod as `get pods -o json` shows it; `name` is the name in the manifest.
    ///
    /// # Errors
    /// When the agent does not answer, or does not know the pod.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.agent.json(&["get", "pods", &pods::on_node(name)]).map(Pod::new)
    }

    /// Returns the names of the pods that the agent shows.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn pod_names(&self) -> Result<Vec<String>> {
        let list = self.agent.json(&["get", "pods"])?;
        let items = list["items"].as_array().context("get pods -o json has no items")?;
        Ok(items.iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until the pod is Running with all containers ready, in the agent's view and in the runtime's; returns its
    /// containers.
    ///
    /// # Errors
    /// When this does not happen within [`PATIENCE`].
    pub fn await_running(&self, name: &str) -> Result<Vec<Running>> {
        let view = self.view();
        self.await_running_by(name, || view.of_pod(&pods::on_node(name)))
    }

    /// Waits as [`await_running`](Self::await_running) does, for a pod whose containers `running` returns.
    pub(crate) fn await_running_by(
        &self,
        name: &str,
        running: impl Fn() -> Result<Vec<Running>>,
    ) -> Result<Vec<Running>> {
        self.until(&format!("pod {name} to run"), || {
            let pod = self.pod(name)?;
            ensure!(pod.phase() == "Running" && pod.ready(), "{}", pod.summary());
            let running = running()?;
            ensure!(running.len() == pod.containers(), "the runtime runs {} of its containers", running.len());
            Ok(running)
        })
    }

    /// Waits until the runtime runs no container of the pod and the agent does not show it.
    ///
    /// # Errors
    /// When this does not happen within [`PATIENCE`].
    pub fn await_gone(&self, name: &str) -> Result<()> {
        let view = self.view();
        let full = pods::on_node(name);
        self.until(&format!("pod {name} to be gone"), || {
            let running = view.of_pod(&full)?;
            ensure!(running.is_empty(), "the runtime still runs {running:?}");
            ensure!(!self.pod_names()?.contains(&full), "get pods still shows it");
            Ok(())
        })
    }

    /// Calls [`until`] with the limit [`PATIENCE`].
    ///
    /// # Errors
    /// When `look` does not succeed in time.
    pub fn until<T, E: Debug>(&self, what: &str, look: impl FnMut() -> std::result::Result<T, E>) -> Result<T> {
        until(what, PATIENCE, look)
    }

    /// Returns the running container of a pod that has exactly one.
    ///
    /// # Errors
    /// When the runtime runs none, or several.
    pub fn container(&self, name: &str) -> Result<Running> {
        let mut running = self.view().of_pod(&pods::on_node(name))?;
        ensure!(running.len() == 1, "pod {name} has {} running containers, not 1", running.len());
        running.pop().context("a list of one is empty")
    }

    /// Returns the pod's address.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, name: &str) -> Result<IpAddr> {
        self.pod(name)?.address()
    }

    /// Sends a command to the redis of a pod.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn redis(&self, name: &str, command: &str) -> Result<String> {
        crate::redis::ask(SocketAddr::new(self.address(name)?, 6379), command)
    }

    /// Returns the output of a command, both streams, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started or hangs.
    pub fn said(&self, arguments: &[&str]) -> Result<String> {
        let output = self.agent.cli(arguments)?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Waits until the output of a command contains all of `words`.
    ///
    /// # Errors
    /// When this does not happen in time.
    pub fn await_said(&self, arguments: &[&str], words: &[&str]) -> Result<()> {
        self.await_said_within(PATIENCE, arguments, words)
    }

    /// Does the same as [`await_said`](Self::await_said), with another time limit.
    ///
    /// # Errors
    /// When this does not happen in time.
    pub fn await_said_within(&self, within: Duration, arguments: &[&str], words: &[&str]) -> Result<()> {
        until(&format!("`stanchion {}` to say {words:?}", arguments.join(" ")), within, || {
            let said = self.said(arguments)?;
            ensure!(words.iter().all(|word| said.contains(word)), "it says: {said}");
            Ok(())
        })
    }

    /// Returns events as `get events -o json` shows them.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub fn events(&self) -> Result<Vec<Value>> {
        let list = self.agent.json(&["get", "events"])?;
        list["items"].as_array().cloned().context("get events -o json has no items")
    }

    /// Returns the state and the logs that help to find the cause of a failure.
    #[must_use]
    pub fn dump(&self) -> String {
        let say = |result: Result<String>| result.unwrap_or_else(|error| format!("{error:#}"));
        let tasks = match self.view() {
            View::Containerd(ctr) => ctr.run(&["tasks", "ls"]),
            View::Docker(_) => Ok(String::new()),
        };
        let docker = self.docker.as_ref().map(|docker| tail(docker.log(), 30)).unwrap_or_default();
        format!(
            "---- get pods\n{}\n---- get pods -o yaml\n{}\n---- get events\n{}\n---- tasks\n{}\n\
             ---- containers\n{}\n---- agent\n{}\n---- containerd\n{}\n---- dockerd\n{docker}\n----",
            say(self.agent.text(&["get", "pods", "-o", "wide"])),
            say(self.agent.text(&["get", "pods", "-o", "yaml"])),
            say(self.agent.text(&["get", "events"])),
            say(tasks),
            say(self.view().table()),
            self.agent.log_tail(100),
            tail(self.containerd.log(), 15),
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.dump());
        }
    }
}

/// Returns the directory of the programs that cargo built together with the running one.
fn profile_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot tell the path of the running program")?;
    let target = tools::target_dir()?;
    let below = program.strip_prefix(&target).context("the running program is not in the target directory")?;
    Ok(target.join(below.components().next().context("the running program is the target directory")?))
}
