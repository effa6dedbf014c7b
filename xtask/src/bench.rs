//! `cargo xtask bench`: compares the agent with the runtime's own client, `ctr run -d` or `docker run -d`, in one run.
//!
//! A time runs from the change (a file renamed, a process killed) to the timestamp of containerd's event `/tasks/start`
//! or `/tasks/exit`; Docker's containers are tasks of containerd too. For a client the change is the start of the
//! program. Agent and client take turns, so that other load on the machine affects both.

mod decode;
mod machine;
mod mixed;
mod plain;
mod probes;
mod rounds;
mod table;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::{Backend, Node, NodeBuilder, proc, slot, slot::Kind, wait::pause};

use crate::{
    bench::{
        mixed::Mixed,
        table::{Report, Samples},
    },
    build, deps,
    interrupt::Interrupt,
    say,
};

/// Parts of the benchmark, for `--only`.
const PARTS: [&str; 4] = ["pods", "mixed", "decode", "probes"];

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Runtimes to measure on: containerd, docker
    #[arg(long, value_delimiter = ',', default_value = "containerd,docker", value_parser = runtime)]
    on: Vec<Backend>,
    /// Numbers of pods on the node
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50])]
    n: Vec<usize>,
    /// How often add, crash, update and delete are measured for each number
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Pods on each of Docker and containerd, in the mixed run
    #[arg(long, default_value_t = 25)]
    mixed: usize,
    /// How long the idle agent is watched, seconds
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// Only these parts: pods, mixed, decode, probes
    #[arg(long, value_delimiter = ',', default_values = PARTS, value_parser = PARTS)]
    only: Vec<String>,
    /// Uses programs of the dev profile: faster to build, not for publication
    #[arg(long)]
    dev: bool,
    /// Uses the programs and libraries of this directory, e.g. those of an earlier release
    #[arg(long, conflicts_with = "dev")]
    programs: Option<PathBuf>,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.iter().any(|it| it == part)
    }
}

/// Runs the benchmark and prints its results.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.n.iter().all(|n| *n > 0), "--n takes numbers from 1");
    ensure!(options.rounds > 0, "--rounds must be at least 1");
    ensure!(options.mixed > 0, "--mixed must be at least 1");
    deps::ensure_all()?;
    slot::sweep()?;
    let programs = build::chosen_programs(options.programs.as_deref(), !options.dev)?;
    let interrupt = Interrupt::watch()?;
    println!("{}", machine::describe(options.dev)?);
    if options.wants("decode") {
        decode::measure(&programs)?;
    }
    if options.wants("probes") {
        let node = NodeBuilder::new(Kind::Bench).on(Backend::Containerd);
        on_a_fresh_node(node, &programs, &interrupt, |node| probes::measure(node, options.idle))?;
    }
    for on in options.on.iter().filter(|_| options.wants("pods")) {
        let mut report = Report::new(*on);
        for n in &options.n {
            say(format!("measuring on {} with {n} pods", on.name()));
            // A fresh node for each number, so that none pays for the caches and histories of another.
            let node = NodeBuilder::new(Kind::Bench).on(*on);
            on_a_fresh_node(node, &programs, &interrupt, |node| {
                rounds::Bench::new(node, &interrupt)?.measure(*n, options, &mut report)
            })?;
        }
        println!("{report}");
    }
    if options.wants("mixed") {
        let node = NodeBuilder::new(Kind::Bench).mixed().runs_in_memory();
        let rounds = options.rounds.min(MIXED_ROUNDS);
        let measure = |node: &Node| Mixed::measure(node, options.mixed, rounds, &interrupt);
        println!("{}", on_a_fresh_node(node, &programs, &interrupt, measure)?);
    }
    Ok(())
}

/// Most rounds of a mixed run: each starts all pods three times, and their containers three times with the clients.
const MIXED_ROUNDS: usize = 5;

/// Measures on a new node, which must be empty again afterwards.
fn on_a_fresh_node<T>(
    node: NodeBuilder,
    programs: &Path,
    interrupt: &Interrupt,
    measure: impl FnOnce(&Node) -> Result<T>,
) -> Result<T> {
    let mut node = node.programs(programs).start()?;
    let result = measure(&node).and_then(|measured| node.await_nothing_left().map(|()| measured));
    if result.is_err() && !interrupt.happened() {
        eprintln!("{}", node.dump());
    }
    let measured = result?;
    node.agent.stop()?;
    Ok(measured)
}

fn runtime(name: &str) -> Result<Backend> {
    let named = [Backend::Containerd, Backend::Docker].into_iter().find(|runtime| runtime.name() == name);
    named.with_context(|| format!("no runtime {name:?}: there are containerd and docker"))
}

/// CPU and memory of an idle agent.
struct Idle {
    /// Share of one core, per cent.
    cpu: f64,
    /// Proportional memory at each second, MiB.
    memory: Samples,
}

impl Idle {
    fn watch(agent: u32, seconds: u64) -> Result<Self> {
        let (begun, before, mut memory) = (Instant::now(), proc::cpu(agent)?, Samples::default());
        for _ in 0..seconds {
            pause(Duration::from_secs(1));
            memory.add(proc::pss(agent)? as f64 / f64::from(1 << 20));
        }
        let used = proc::cpu(agent)?.checked_sub(before).context("CPU time ran backwards")?;
        Ok(Self { cpu: used.as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0, memory })
    }

    /// Returns the memory as text: median and maximum.
    fn memory(&self) -> String {
        format!("{:.1} MiB, at most {:.1}", self.memory.at(0.5), self.memory.at(1.0))
    }
}
