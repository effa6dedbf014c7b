//! A soak: the agent on a real daemon under random edits, kills and hostile input, for a given time.
//!
//! Rounds follow each other. A round does a few [`Deed`]s, undoes those that must not last (a full disk, a daemon that
//! is away), and waits until exactly the expected pods run. That wait is bounded, and the report has the longest one.
//! In the end all manifests are removed; everything left over is a fault.
//!
//! The same seed makes the same choices. The actions are logged below [`Options::actions`], with their times.
//!
//! # Layout
//!
//! - `deck` chooses the deeds; `deeds` does them; `kills` does those that end a process.
//! - `subjects` are the pods, well-behaved and hostile; `archives` are hostile files for `preload`.
//! - `clock` sets the agent's clock; `settle` waits; `left` counts what is left over.
//! - `journal` logs the actions; `report` makes the table.

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

/// Time limit until all expected pods run. Two kills of a container cost a back-off of 10 s, the end of a pod takes its
/// grace, and the machine may be busy.
const SETTLE: Duration = Duration::from_secs(180);

/// Options of the tmpfs for the agent's state, which is filled and freed.
const STATE_DISK: &str = "size=64m,mode=0700";

/// Most faults that a report lists.
const MOST_FAULTS: usize = 10;

/// Options of a soak.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runtime that runs the pods.
    pub runtime: Backend,
    /// Time during which rounds are started; the last round and the cleanup come on top.
    pub during: Duration,
    /// Seeds every choice.
    pub seed: u64,
    /// Deeds that are left out.
    pub without: Vec<Group>,
    /// Whether dockerd keeps its containers running while it is away (`live-restore`, which operators are told to set).
    pub live_restore: bool,
    /// Directory of the agent's programs; by default, those that were built with the running program.
    pub programs: Option<PathBuf>,
    /// Directory for the log of actions and, after a fault, for the daemons' logs.
    pub actions: PathBuf,
}

/// Runs a soak. Calls `stop` between rounds, and ends early when it returns true.
///
/// # Errors
/// When the node cannot be set up or the harness itself fails. Faults of the agent are in the report.
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
        // The harness could not go on; faults of the agent before that count too.
        soak.fault(format!("the run stopped early: {error:#}"));
    }
    soak.finish()
}

/// A running soak.
struct Soak {
    options: Options,
    node: Node,
    random: Random,
    deck: Deck,
    journal: Journal,
    clock: Clock,
    /// Expected pods, by their name in the manifest.
    wanted: BTreeMap<String, Wanted>,
    /// Archives in `preload`, by file name.
    archives: Vec<String>,
    /// The bystander's container, as it was first seen.
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
            random: Random::new(options.seed),
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

    /// Returns whether containers keep running while the runtime's daemon is away.
    fn keeps_containers(&self) -> bool {
        self.options.live_restore || self.options.runtime != Backend::Docker
    }

    fn round(&mut self) -> Result<()> {
        self.dismiss()?;
        for _ in 0..self.random.within(3..7) {
            let deed = self.deck.draw(&mut self.random);
            self.perform(deed)?;
            self.look_after_the_agent()?;
            let moment = self.random.moment(0..700);
            crate::wait::pause(moment);
        }
        self.free_disk()?;
        self.settle()
    }

    /// Records a fault; at the first one, also keeps the logs.
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

    /// Copies the daemons' logs out of the node's directory, which is removed later.
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

/// Returns the directory for a run's logs: below the target directory, one for each runtime.
///
/// # Errors
/// When the running program is in no target directory, or the directory cannot be made.
pub fn actions_dir(runtime: Backend) -> Result<PathBuf> {
    let dir = crate::tools::target_dir()?.join("xtask/soak").join(runtime.name());
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Returns whether nothing exists at a path.
fn is_absent(path: &Path) -> bool {
    !path.exists()
}
