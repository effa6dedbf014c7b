//! A node: directories, fake runtimes, and an agent that can end and start again.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rustix::fs::inotify;
use stanchion_agent::{
    Agent, Clock,
    backends::Backend,
    config::{AgentConfig, DefaultBackend, Failover, ImageGc, NodeShutdown, Policy, Remembered},
    handle::Handle,
};
use stanchion_board::view::NodeView;
use stanchion_pod::Capacity;
use stanchion_runtime::testing::{FakeRuntime, Hold, Program};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    pod::Role,
    schedule::{BACKENDS, PODS, SOURCES, Schedule},
};

/// Commands of probes and hooks.
pub const COMMANDS: [&str; 4] = ["liveness", "readiness", "preStop", "postStart"];

/// Turns in which every task of a killed agent ends.
const TURNS: u32 = 50;

/// A node.
#[derive(Debug)]
pub struct Node {
    clock: Clock,
    ahead: &'static AtomicI64,
    config: AgentConfig,
    failover: Option<Failover>,
    /// The runtimes.
    pub fakes: Vec<FakeRuntime>,
    /// Holds on hanging calls, by runtime.
    pub holds: Vec<(usize, Hold)>,
    agent: Option<Life>,
}

/// A running agent.
#[derive(Debug)]
struct Life {
    handle: Handle<FakeRuntime>,
    shutdown: CancellationToken,
    killed: CancellationToken,
    tasks: JoinSet<Option<String>>,
}

impl Node {
    /// Makes the node of a schedule, in the working directory: paths are the same wherever that is.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn new(schedule: &Schedule) -> io::Result<Self> {
        let origin: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
        let ahead: &AtomicI64 = Box::leak(Box::default());
        let clock = Clock::Tokio { origin, start: now(), ahead };
        let none = FakeRuntime::with_clock(move || clock.now());
        let names = &BACKENDS[..schedule.backends];
        let fakes: Vec<_> = names.iter().map(|name| none.beside(name, move || clock.now())).collect();
        for fake in &fakes {
            furnish(fake);
        }
        for directory in ["state", "proc", "away"].map(PathBuf::from).into_iter().chain((0..SOURCES).map(source)) {
            fs::create_dir(directory)?;
        }
        let failover = schedule.failover.map(|(after, on_return)| Failover { after, on_return });
        Ok(Self { clock, ahead, config: config(schedule), failover, fakes, holds: Vec::new(), agent: None })
    }

    /// Returns the handle of the running agent.
    #[must_use]
    pub fn handle(&self) -> Option<&Handle<FakeRuntime>> {
        self.agent.as_ref().map(|life| &life.handle)
    }

    /// Starts an agent, if none runs.
    ///
    /// # Errors
    /// Other programs have all inotify instances: the agent would poll, and the seed would go another way.
    pub fn start(&mut self) -> io::Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let open = |(name, fake): (&&str, &FakeRuntime)| Backend {
            failover: self.failover,
            ..Backend::open(name, Arc::new(fake.clone()))
        };
        let backends = BACKENDS.iter().zip(&self.fakes).map(open).collect();
        let view = NodeView { name: "node".to_owned(), ..NodeView::default() };
        let killed = CancellationToken::new();
        let capacity = Capacity { cpu: 4000, memory: 8 << 30, ephemeral_storage: 0 };
        let agent = Agent::new(self.config.clone(), backends, view)
            .with_clock(self.clock)
            .with_capacity(capacity)
            .with_proc("proc".into())
            .with_addresses(watch::Sender::new(vec![[192, 0, 2, 1].into()]))
            .with_kill(killed.clone());
        let (shutdown, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let (handle, stop) = (agent.handle(), shutdown.clone());
        tasks.spawn(async move { agent.run(stop).await.err().map(|error| error.to_string()) });
        self.agent = Some(Life { handle, shutdown, killed, tasks });
        Ok(())
    }

    /// Ends the agent in order, or kills it: then each of its tasks ends at the await that it is in. Returns the panic
    /// that had ended it.
    pub async fn end(&mut self, is_killed: bool) -> Option<String> {
        let mut life = self.agent.take()?;
        if is_killed {
            life.killed.cancel();
        }
        life.shutdown.cancel();
        let panic = match life.tasks.join_next().await? {
            Ok(panic) => panic,
            Err(error) => Some(error.to_string()),
        };
        // What an orderly end has not waited for ends with the process.
        life.killed.cancel();
        for _ in 0..TURNS {
            yield_now().await;
        }
        panic
    }

    /// Returns whether the agent has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.agent.as_ref().is_some_and(|life| life.tasks.is_empty())
    }

    /// Sets the time of day ahead by so many hours; negative: back.
    pub fn set_clock(&self, hours: i64) {
        self.ahead.fetch_add(hours * 3600, Ordering::Relaxed);
    }

    /// Makes all calls to a runtime work again, those that hang too.
    pub fn heal(&mut self, backend: usize) {
        self.fakes[backend].heal_all();
        self.fakes[backend].mute_events(false);
        self.holds.retain(|(of, hold)| {
            if *of == backend {
                hold.release();
            }
            *of != backend
        });
    }

    /// Shows the agent a process for each of these UIDs, as procfs does.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn show_processes<'a>(&self, uids: impl Iterator<Item = &'a str>) -> io::Result<()> {
        fs::remove_dir_all("proc")?;
        fs::create_dir("proc")?;
        for (pid, uid) in (7..).zip(uids) {
            let process = Path::new("proc").join(i32::to_string(&pid));
            fs::create_dir(&process)?;
            fs::write(process.join("cgroup"), format!("0::/root/pod{uid}/app\n"))?;
        }
        Ok(())
    }

    /// Returns the files of pods that are left, which nobody needs once all pods are gone.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let places = [self.config.state_dir.join("pods"), self.config.log_dir.clone()];
        let left = places.iter().flat_map(fs::read_dir).flatten().flatten();
        left.map(|entry| entry.path().display().to_string()).collect()
    }
}

/// Returns the present.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the directory of a source.
#[must_use]
pub fn source(index: usize) -> PathBuf {
    format!("manifests-{index}").into()
}

/// Gives a runtime the programs of all containers, with probes and hooks that succeed.
fn furnish(fake: &FakeRuntime) {
    let second = Duration::from_secs(1);
    for pod in PODS {
        for role in Role::ALL {
            let name = crate::pod::container(role, pod);
            let program = match role {
                Role::Server | Role::Side => Program::server(),
                Role::Slow => Program::stops_in(7 * second, 0),
                Role::Stubborn => Program::stubborn(),
                Role::Job => Program::exits(40 * second, 0),
                Role::Fails => Program::exits(5 * second, 1),
                Role::Init => Program::exits(2 * second, 0),
            };
            fake.program(&name, program);
            for command in COMMANDS {
                fake.exec_answer(&name, &[command], 0, "");
            }
        }
    }
}

fn config(schedule: &Schedule) -> AgentConfig {
    let default_backend = match schedule.is_auto {
        true => DefaultBackend::Auto,
        false => DefaultBackend::Named(BACKENDS[0].to_owned()),
    };
    let classes = BACKENDS[..schedule.backends].iter().map(|name| ((*name).to_owned(), (*name).to_owned()));
    AgentConfig {
        node_name: "node".to_owned(),
        state_dir: "state".into(),
        run_dir: "run".into(),
        log_dir: "logs".into(),
        log_links: None,
        sources: (0..SOURCES).map(|index| source(index).into()).collect(),
        default_backend,
        runtime_classes: classes.collect::<BTreeMap<_, _>>(),
        preload: None,
        credential_providers: None,
        image_gc: ImageGc { thresholds: None, ..ImageGc::default() },
        seccomp_default: false,
        allowed_unsafe_sysctls: Vec::new(),
        pod_pids_limit: None,
        max_pods: 110,
        resolv_conf: Some(PathBuf::new()),
        policy: Policy::default(),
        node_shutdown: NodeShutdown::default(),
        remembered: Remembered::default(),
    }
}
