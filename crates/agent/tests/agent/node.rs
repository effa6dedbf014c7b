//! A test node: directories, fake runtimes, and an agent that can stop and start again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    future::Future,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use stanchion_agent::{
    Agent, Clock,
    backends::Backend,
    config::{AgentConfig, DefaultBackend, Failover, ImageGc, NodeShutdown, Policy, Remembered},
    handle::Handle,
};
use stanchion_board::view::{EventView, ManifestView, NodeView, PodView};
use stanchion_pod::{PodKey, k8s_openapi::api::core::v1 as wire};
use stanchion_runtime::{
    ContainerId, ContainerInfo, ContainerState, Inventory, SandboxState, labels,
    testing::{Call, FakeRuntime},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// Longest wait of a test, on the paused clock.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);

pub struct Node {
    dir: TempDir,
    pub clock: Clock,
    ahead: &'static AtomicI64,
    pub config: AgentConfig,
    /// Runtimes by name, the default one first.
    pub fakes: Vec<(String, FakeRuntime)>,
    /// Failover settings by the runtime's name.
    pub failover: BTreeMap<String, Failover>,
    /// Addresses of the node.
    pub addresses: watch::Sender<Vec<IpAddr>>,
    agent: Option<RunningAgent>,
    guards: JoinSet<()>,
    doubles: Arc<Mutex<BTreeSet<String>>>,
}

/// A running agent.
struct RunningAgent {
    handle: Handle<FakeRuntime>,
    shutdown: CancellationToken,
    killed: CancellationToken,
    tasks: JoinSet<()>,
}

/// Containers that should run: pod → container → image.
pub type Wanted<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

impl Node {
    /// Makes a node with one runtime, `first`, whose registry has `app:1` to `app:9`. Does not start the agent.
    pub fn new() -> Self {
        Self::with_runtimes(&["first"])
    }

    /// Makes a node with these runtimes. The first is the default; each has a runtime class of its name.
    pub fn with_runtimes(names: &[&str]) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let origin: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let ahead: &AtomicI64 = Box::leak(Box::default());
        let clock = Clock::Tokio { origin, start: Instant::now(), ahead };
        let first = FakeRuntime::with_clock(move || clock.now());
        let mut fakes = vec![(names[0].to_owned(), first.clone())];
        fakes.extend(names[1..].iter().map(|name| ((*name).to_owned(), first.beside(name, move || clock.now()))));
        for (_, fake) in &fakes {
            for tag in 1..10 {
                fake.publish(&format!("docker.io/library/app:{tag}"), 1000);
            }
        }
        let config = AgentConfig {
            node_name: "node".to_owned(),
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            log_dir: dir.path().join("logs"),
            log_links: None,
            sources: vec![dir.path().join("manifests").into()],
            default_backend: DefaultBackend::Named(names[0].to_owned()),
            runtime_classes: names.iter().map(|name| ((*name).to_owned(), (*name).to_owned())).collect(),
            preload: None,
            credential_providers: None,
            image_gc: ImageGc { thresholds: None, ..ImageGc::default() },
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            pod_pids_limit: None,
            max_pods: 110,
            resolv_conf: None,
            policy: Policy::default(),
            node_shutdown: NodeShutdown::default(),
            remembered: Remembered::default(),
        };
        for name in ["manifests", "proc", "state"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let failover = BTreeMap::new();
        let addresses = watch::Sender::new(vec![[192, 0, 2, 1].into()]);
        let mut node = Self {
            dir,
            clock,
            ahead,
            config,
            fakes,
            failover,
            addresses,
            agent: None,
            guards: JoinSet::new(),
            doubles: Arc::default(),
        };
        node.guard();
        node
    }

    /// Sets the wall clock ahead by this many hours; negative: back.
    pub fn set_clock(&self, hours: i64) {
        self.ahead.fetch_add(hours * 3600, Ordering::Relaxed);
    }

    /// Returns the default runtime.
    pub fn fake(&self) -> &FakeRuntime {
        &self.fakes[0].1
    }

    pub fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Writes a manifest by rename, as an editor or `install` does.
    pub fn write(&self, file: &str, content: &impl fmt::Display) {
        let temporary = self.manifests().join(format!(".{file}"));
        fs::write(&temporary, content.to_string()).expect("a manifest can be written");
        fs::rename(&temporary, self.manifests().join(file)).expect("a manifest can be renamed");
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).expect("the manifest was there");
    }

    /// Puts a process into a pod's cgroup, as the agent sees it, or removes it again.
    pub fn show_process(&self, uid: &str, is_there: bool) {
        let process = self.dir.path().join("proc/7");
        match is_there {
            true => fs::create_dir(&process).expect("a process"),
            false => return fs::remove_dir_all(&process).expect("it was there"),
        }
        fs::write(process.join("cgroup"), format!("0::/root/pod{uid}/app\n")).expect("its cgroup");
    }

    pub fn start(&mut self) {
        let open = |(name, fake): &(String, FakeRuntime)| {
            let failover = self.failover.get(name).copied();
            Backend { failover, ..Backend::open(name, Arc::new(fake.clone())) }
        };
        let backends = self.fakes.iter().map(open).collect();
        let view = NodeView { name: "node".to_owned(), ..NodeView::default() };
        let agent = Agent::new(self.config.clone(), backends, view);
        let agent = agent.with_clock(self.clock).with_proc(self.dir.path().join("proc"));
        let agent = agent.with_addresses(self.addresses.clone());
        let (shutdown, killed) = (CancellationToken::new(), CancellationToken::new());
        let agent = agent.with_kill(killed.clone());
        let handle = agent.handle();
        let (mut tasks, stop) = (JoinSet::new(), shutdown.clone());
        tasks.spawn(async move { agent.run(stop).await.expect("no task of the agent panics") });
        let last = self.agent.replace(RunningAgent { handle, shutdown, killed, tasks });
        assert!(last.is_none(), "the agent runs already");
    }

    /// Stops the agent in order. A hanging call is abandoned: its worker never comes back.
    pub async fn stop(&mut self) {
        let mut running = self.agent.take().expect("the agent runs");
        running.shutdown.cancel();
        while let Some(ended) = running.tasks.join_next().await {
            ended.expect("no task of the agent panics");
        }
    }

    /// Kills the agent: each of its tasks ends at the await that it has reached, as with `SIGKILL`.
    pub async fn kill(&mut self) {
        self.agent.as_ref().expect("the agent runs").killed.cancel();
        self.stop().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start();
    }

    pub fn handle(&self) -> &Handle<FakeRuntime> {
        &self.agent.as_ref().expect("the agent runs").handle
    }

    pub fn pod(&self, name: &str) -> Option<Arc<PodView>> {
        self.handle().board.pod(&key(name))
    }

    pub fn status(&self, name: &str) -> wire::PodStatus {
        self.pod(name).and_then(|view| view.pod.status.clone()).unwrap_or_default()
    }

    /// Returns a container's waiting reason, else the reason of its end, else `Running`; empty if it has no status.
    pub fn reason(&self, pod: &str, container: &str) -> String {
        let statuses = self.status(pod).container_statuses.unwrap_or_default();
        let Some(status) = statuses.into_iter().find(|status| status.name == container) else { return String::new() };
        let state = status.state.unwrap_or_default();
        match (state.waiting, state.terminated) {
            (Some(waiting), _) => waiting.reason.unwrap_or_default(),
            (_, Some(terminated)) => terminated.reason.unwrap_or_default(),
            _ => "Running".to_owned(),
        }
    }

    /// Returns the status of a container or init container.
    pub fn container(&self, pod: &str, container: &str) -> wire::ContainerStatus {
        let view = self.pod(pod);
        let found = view.iter().flat_map(|view| view.statuses()).find(|status| status.name == container);
        found.cloned().unwrap_or_default()
    }

    /// Returns a waiting reason, `Running`, or the reason and exit code of the end, of a container or init container.
    pub fn state(&self, pod: &str, container: &str) -> String {
        let state = self.container(pod, container).state.unwrap_or_default();
        match (state.waiting, state.terminated) {
            (Some(waiting), _) => waiting.reason.unwrap_or_default(),
            (_, Some(end)) => format!("{} {}", end.reason.unwrap_or_default(), end.exit_code),
            _ if state.running.is_some() => "Running".to_owned(),
            _ => String::new(),
        }
    }

    /// Returns the names of started containers, with the seconds since `origin`.
    pub fn starts(&self, origin: Instant) -> Vec<(String, u64)> {
        self.timed(origin, |call| match call {
            Call::StartContainer(id) => Some(id.clone()),
            _ => None,
        })
    }

    /// Returns the names of containers that got a stop signal, with the seconds since `origin`.
    pub fn stops(&self, origin: Instant) -> Vec<(String, u64)> {
        self.timed(origin, |call| match call {
            Call::StopContainer(id, _) => Some(id.clone()),
            _ => None,
        })
    }

    fn timed(&self, origin: Instant, of: impl Fn(&Call) -> Option<ContainerId>) -> Vec<(String, u64)> {
        let calls = self.fake().timed_calls();
        calls
            .iter()
            .filter_map(|(at, call)| Some((name_of(&of(call)?), at.saturating_duration_since(origin).as_secs())))
            .collect()
    }

    /// Returns the commands that were run in containers, arguments joined by spaces.
    pub fn commands(&self) -> Vec<String> {
        let calls = self.fake().calls().into_iter();
        calls.filter_map(|call| if let Call::Exec(it) = call { Some(it.command.join(" ")) } else { None }).collect()
    }

    /// Returns status, reason and message of the pod condition of this type.
    pub fn condition(&self, pod: &str, kind: &str) -> Option<(String, String, String)> {
        let found = self.status(pod).conditions.unwrap_or_default().into_iter().find(|it| it.type_ == kind)?;
        Some((found.status, found.reason.unwrap_or_default(), found.message.unwrap_or_default()))
    }

    pub fn file(&self, name: &str) -> Option<ManifestView> {
        let path = self.manifests().join(name).display().to_string();
        let files = self.handle().board.sources().into_iter().flat_map(|source| source.manifests);
        files.into_iter().find(|manifest| manifest.path == path)
    }

    pub fn events(&self, reason: &str) -> Vec<EventView> {
        self.handle().events.all().into_iter().filter(|event| event.reason == reason).collect()
    }

    /// Returns the running container `app` of a pod, on any runtime.
    pub fn app(&self, pod: &str) -> Option<ContainerInfo> {
        let name = format!("{pod}-node");
        let is_it = |it: &ContainerInfo| {
            it.name == "app"
                && it.labels.get(labels::POD_NAME) == Some(&name)
                && matches!(it.state, ContainerState::Running { .. })
        };
        self.fakes.iter().flat_map(|(_, fake)| fake.inventory().containers).find(is_it)
    }

    /// Waits until `holds` is true, and tests it again after each change of the board.
    pub async fn shows(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changes = self.handle().board.watch();
        let wait = async {
            while !holds(self) {
                changes.changed().await.expect("the board outlives its readers");
            }
        };
        self.patiently(what, wait).await;
    }

    /// Waits until exactly these containers run, each pod in one sandbox, and the board says so.
    pub async fn runs(&self, wanted: Wanted<'_>) {
        let of = |(pod, containers): &(&str, &[(&str, &str)])| {
            let containers = containers.iter().map(|(name, image)| ((*name).to_owned(), (*image).to_owned()));
            (format!("{pod}-node"), containers.collect())
        };
        let wanted: BTreeMap<String, BTreeSet<(String, String)>> = wanted.iter().map(of).collect();
        let is_up = |wanted: &BTreeMap<String, BTreeSet<(String, String)>>| {
            running(self.fakes.iter().map(|(_, fake)| fake.inventory())) == *wanted
        };
        let wait = async {
            while !is_up(&wanted) {
                self.changed().await;
            }
        };
        self.patiently(&format!("{wanted:?} to run, and nothing else"), wait).await;
        let phases = wanted.keys().map(|name| name.strip_suffix("-node").expect("it was put there").to_owned());
        for pod in phases {
            self.shows(&format!("{pod} Running"), |node| node.status(&pod).phase.as_deref() == Some("Running")).await;
        }
    }

    /// Waits until nothing is left of any pod, in any runtime or directory (I6).
    pub async fn is_empty(&self) {
        let wait = async {
            loop {
                let inventories = self.fakes.iter().map(|(_, fake)| fake.inventory());
                let is_bare = inventories.into_iter().all(|it| it.sandboxes.is_empty() && it.containers.is_empty());
                if is_bare && self.handle().board.pods().is_empty() {
                    return;
                }
                self.changed().await;
            }
        };
        self.patiently("nothing to be left", wait).await;
        // The agent sweeps the files of a killed agent only after a while.
        let swept = Instant::now() + Duration::from_secs(120);
        loop {
            let places = [self.config.state_dir.join("pods"), self.config.log_dir.clone()];
            let left: Vec<_> = places.iter().flat_map(fs::read_dir).flatten().flatten().map(|it| it.path()).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < swept, "I6: files are left: {left:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits for a change on the board or in a runtime.
    async fn changed(&self) {
        let mut board = self.handle().board.watch();
        let events = self.fakes.iter().map(|(_, fake)| {
            let before = fake.inventory();
            Box::pin(async move { drop(fake.until(|now| *now != before).await) })
        });
        tokio::select! {
            _ = board.changed() => {}
            _ = futures_util::future::select_all(events) => {}
        }
    }

    pub async fn patiently<T>(&self, what: &str, wait: impl Future<Output = T>) -> T {
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(done) => done,
            Err(_) => panic!("waited in vain for {what}\n{self:?}"),
        }
    }

    /// Lets a minute pass, so that everything under way ends.
    pub async fn settle(&self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    /// Asserts what must hold in every test (I1).
    pub fn check(&self) {
        let violations = self.fake().violations();
        assert!(violations.is_empty(), "I1: {violations:?}\n{self:?}");
        let doubles = self.doubles.lock().expect("no test panics with it");
        assert!(doubles.is_empty(), "I1: {doubles:?}\n{self:?}");
    }

    /// Records pods whose containers run in more than one sandbox, whatever their revision, on all runtimes together.
    fn guard(&mut self) {
        let all: Vec<_> = self.fakes.iter().map(|(_, fake)| fake.clone()).collect();
        for fake in all.clone() {
            let (all, doubles) = (all.clone(), Arc::clone(&self.doubles));
            self.guards.spawn(async move {
                loop {
                    let doubled = |_: &Inventory| {
                        let found = doubled(all.iter().map(FakeRuntime::inventory));
                        !found.is_empty() && {
                            doubles.lock().expect("no test panics with it").extend(found);
                            true
                        }
                    };
                    let seen = fake.until(doubled).await;
                    fake.until(|now| *now != seen).await;
                }
            });
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Mounts of pods that still run.
        for mount in mounts_below(self.dir.path()).iter().rev() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(mount, flags).unwrap_or_else(|error| eprintln!("{}: {error}", mount.display()));
        }
        if !std::thread::panicking() {
            self.check();
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, fake) in &self.fakes {
            writeln!(f, "-- {name}")?;
            let Inventory { sandboxes, containers } = fake.inventory();
            for sandbox in sandboxes {
                writeln!(f, "{} {:?} {:?}", sandbox.id, sandbox.state, sandbox.labels.get(labels::POD_NAME))?;
            }
            for container in containers {
                writeln!(f, "{} in {} {} {:?}", container.id, container.sandbox, container.image, container.state)?;
            }
            let actions = fake.actions();
            for action in actions.iter().skip(actions.len().saturating_sub(15)) {
                let text: String = format!("{action:?}").chars().take(120).collect();
                writeln!(f, "  {text}")?;
            }
        }
        if let Some(RunningAgent { handle, .. }) = &self.agent {
            for event in handle.events.all().iter().rev().take(25).rev() {
                writeln!(f, "{} x{} {} {}: {}", event.last, event.count, event.object, event.reason, event.message)?;
            }
        }
        Ok(())
    }
}

/// Returns a container's name, which the fake's ids begin with.
pub fn name_of(id: &ContainerId) -> String {
    id.as_str().rsplitn(3, '-').last().unwrap_or_default().to_owned()
}

/// Returns the mount points at and below a directory, in mount order.
pub fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the kernel has it");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(directory)).collect()
}

pub fn key(name: &str) -> PodKey {
    PodKey { namespace: "default".to_owned(), name: format!("{name}-node") }
}

/// Returns the containers that run in ready sandboxes, by pod. Containers elsewhere get a name that no test expects.
fn running(inventories: impl Iterator<Item = Inventory>) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for Inventory { sandboxes, containers } in inventories {
        for sandbox in sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready) {
            found.entry(sandbox.labels.get(labels::POD_NAME).cloned().unwrap_or_default()).or_default();
        }
        for container in containers {
            if !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox);
            let is_ready = sandbox.is_some_and(|sandbox| sandbox.state == SandboxState::Ready);
            let pod = container.labels.get(labels::POD_NAME).cloned().unwrap_or_default();
            let place = if is_ready { pod } else { format!("{pod} in a lost sandbox") };
            let image = container.image.trim_start_matches("docker.io/library/").to_owned();
            let is_new = found.entry(place.clone()).or_default().insert((container.name, image));
            if !is_new {
                found.entry(format!("{place} twice")).or_default();
            }
        }
    }
    found
}

/// Returns the pods whose containers run in more than one sandbox.
fn doubled(inventories: impl Iterator<Item = Inventory>) -> Vec<String> {
    let mut places: BTreeMap<String, BTreeSet<(usize, String)>> = BTreeMap::new();
    for (runtime, inventory) in inventories.enumerate() {
        let runs = |container: &&ContainerInfo| matches!(container.state, ContainerState::Running { .. });
        for container in inventory.containers.iter().filter(runs) {
            let pod = container.labels.get(labels::POD_NAME).cloned().unwrap_or_default();
            places.entry(pod).or_default().insert((runtime, container.sandbox.to_string()));
        }
    }
    places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(pod, places)| format!("{pod}: {places:?}"))
        .collect()
}
