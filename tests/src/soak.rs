//! A soak: the agent on a real daemon under random edits, kills and hostile input, for as long as asked.
//!
//! Rounds follow each other. A round does a few [`Deed`]s, undoes what must not last (a full disk, a daemon that is away),
//! and then waits until what should run runs and nothing else: that wait is bounded, and the longest is reported. In the end all
//! manifests are removed, and everything that is left over is a fault.
//!
//! The same seed makes the same choices. What was done is written to [`Options::actions`], with its time.
//!
//! # Layout
//!
//! - `deck` chooses the deeds; `deeds` does them, `kills` those that end a process.
//! - `subjects` are the pods, well-behaved and hostile ones; `archives` are hostile files for `preload`.
//! - `clock` sets the agent's clock; `settle` waits; `left` counts what is left over.
//! - `journal` writes what was done; `report` makes the table.

mod archives;
mod clock;
mod deck;
mod deeds;
mod journal;
mod kills;
mod left;
mod report;
mod settle;
mod subjects;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use self::{
    archives::Archive,
    clock::Clock,
    deck::{Deck, Deed},
    journal::Journal,
    left::Agents,
    subjects::Wanted,
};
pub use self::{
    deck::Group,
    report::{Report, table},
};
use crate::{Node, NodeBuilder, agent::tail, ctr::Running, random::Random, slot::Kind, view::Backend};

/// How long the node may take until everything runs that should. Two kills of a container are a wait of 10 s, the end of a
/// pod takes its grace, and the machine may be busy.
const SETTLE: Duration = Duration::from_secs(180);

/// Size of the file system that has the agent's state. It is filled and freed.
const STATE_DISK: &str = "size=64m,mode=0700";

/// A run ends early beyond this many faults.
const MOST_FAULTS: usize = 10;

/// How to run a soak.
#[derive(Clone, Debug)]
pub struct Options {
    /// The runtime whose pods are tried.
    pub runtime: Backend,
    /// How long rounds are begun; the last one, and the end, come on top.
    pub during: Duration,
    /// Seeds every choice.
    pub seed: u64,
    /// Deeds that are left out.
    pub without: Vec<Group>,
    /// Whether dockerd leaves its containers running while it is away (its live-restore, which operators are told to set).
    pub live_restore: bool,
    /// The directory of the agent's programs; otherwise those that were built with the running one.
    pub programs: Option<PathBuf>,
    /// Directory that takes the log of what was done and, after a fault, the daemons' logs.
    pub actions: PathBuf,
}

/// Runs a soak; `stop` is asked between rounds.
///
/// # Errors
/// When the node cannot be made or the harness itself fails. Faults of the agent are in the report.
pub fn run(options: &Options, stop: &dyn Fn() -> bool) -> Result<Report> {
    let mut builder = NodeBuilder::new(Kind::Test).on(options.runtime).state_disk(STATE_DISK);
    if let Some(programs) = &options.programs {
        builder = builder.programs(programs);
    }
    let mut node = builder.without_agent()?;
    for sub in ["locks", "tmp"] {
        fs::create_dir(node.path(sub)).with_context(|| format!("cannot create {sub}"))?;
    }
    let clock = Clock::build(&node.path("clock"))?;
    let mut environment = clock.environment();
    environment.push(("TMPDIR".to_owned(), node.path("tmp").display().to_string()));
    node.agent.configure(&node.path("stanchion.toml"), environment);
    if let Some(docker) = node.docker.as_mut().filter(|_| options.live_restore) {
        docker.keep_containers()?;
    }
    let mut soak = Soak::new(options, node, clock)?;
    let result = soak.run(stop);
    if let Err(error) = result {
        // The harness could not go on; whatever the agent did before counts too.
        soak.fault(format!("the run broke off: {error:#}"));
    }
    soak.finish()
}

/// A run.
struct Soak {
    options: Options,
    node: Node,
    random: Random,
    deck: Deck,
    journal: Journal,
    clock: Clock,
    /// What should run, by the pod's name in its manifest.
    wanted: BTreeMap<String, Wanted>,
    /// Archives in `preload`, by file name.
    archives: Vec<String>,
    /// A pod that nobody touches, as it was first seen.
    bystander: Option<Running>,
    agents: Agents,
    is_full: bool,
    next_revision: u64,
    started: Instant,
    rounds: u64,
    longest: Duration,
    faults: Vec<String>,
}

impl Soak {
    fn new(options: &Options, node: Node, clock: Clock) -> Result<Self> {
        let journal = Journal::open(&options.actions)?;
        let has_loggers = options.runtime != Backend::Docker;
        let deck = Deck::new(&options.without, has_loggers);
        Ok(Self {
            options: options.clone(),
            node,
            random: Random::seeded(options.seed),
            deck,
            journal,
            clock,
            wanted: BTreeMap::new(),
            archives: Vec::new(),
            bystander: None,
            agents: Agents::default(),
            is_full: false,
            next_revision: 0,
            started: Instant::now(),
            rounds: 0,
            longest: Duration::ZERO,
            faults: Vec::new(),
        })
    }

    fn run(&mut self, stop: &dyn Fn() -> bool) -> Result<()> {
        self.node.agent.start()?;
        self.agents.empty(&self.node)?;
        if self.keeps_containers() {
            self.add(subjects::BYSTANDER)?;
        }
        self.settle()?;
        self.bystander = self.running_of(subjects::BYSTANDER)?;
        while self.started.elapsed() < self.options.during && self.faults.is_empty() && !stop() {
            self.rounds += 1;
            self.journal.note("round", &self.rounds.to_string())?;
            self.round()?;
        }
        Ok(())
    }

    /// Whether containers run on while the runtime's daemon is away.
    fn keeps_containers(&self) -> bool {
        self.options.live_restore || self.options.runtime != Backend::Docker
    }

    fn round(&mut self) -> Result<()> {
        self.dismiss()?;
        for _ in 0..self.random.pick(3..7) {
            let deed = self.deck.draw(&mut self.random);
            self.perform(deed)?;
            self.look_after_the_agent()?;
            let moment = self.random.moment(0..700);
            crate::wait::pause(moment);
        }
        self.free_disk()?;
        self.settle()
    }

    /// Notes a fault, with what helps to find it.
    fn fault(&mut self, text: String) {
        eprintln!("fault: {text}");
        if let Err(error) = self.journal.note("fault", &text) {
            eprintln!("{error:#}");
        }
        if self.faults.is_empty() {
            self.keep(&text);
        }
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(text);
        }
    }

    /// Copies what the daemons wrote out of the node's directory, which goes.
    fn keep(&self, fault: &str) {
        let mut kept = vec![("dump.txt", format!("{fault}\n{}", self.node.dump()))];
        kept.push(("agent.log", tail(&self.node.path("agent.log"), 20_000)));
        kept.push(("containerd.log", tail(self.node.containerd.log(), 2_000)));
        if let Some(docker) = &self.node.docker {
            kept.push(("dockerd.log", tail(docker.log(), 2_000)));
        }
        for (name, text) in kept {
            if let Err(error) = fs::write(self.options.actions.join(name), text) {
                eprintln!("cannot keep {name}: {error}");
            }
        }
    }

    /// Removes every manifest, counts what is left, and makes the report.
    fn finish(mut self) -> Result<Report> {
        let rounds_took = self.started.elapsed();
        let left = self.clear();
        if let Err(error) = &left {
            self.fault(format!("{error:#}"));
        }
        let left = left.unwrap_or_default();
        for thing in left.faults() {
            self.fault(thing);
        }
        Ok(Report {
            runtime: self.options.runtime,
            seed: self.options.seed,
            took: rounds_took,
            rounds: self.rounds,
            counts: self.journal.counts().clone(),
            longest: self.longest,
            left,
            faults: self.faults,
            actions: self.journal.path().to_path_buf(),
        })
    }
}

/// Where a run's logs are kept: below the target directory, one directory for each runtime.
///
/// # Errors
/// When the running program is in no target directory, or the directory cannot be made.
pub fn actions_dir(runtime: Backend) -> Result<PathBuf> {
    let dir = crate::tools::target_dir()?.join("xtask/soak").join(runtime.name());
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Whether nothing is at a path.
fn is_absent(path: &Path) -> bool {
    !path.exists()
}
