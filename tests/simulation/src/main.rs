//! `simulate`: plays schedules by their seeds.

mod fixed;

use std::{env, fmt, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use rustix::process::{Resource, Rlimit, setrlimit};
use stanchion_simulation::{
    many::{self, Which},
    play::play,
};

/// CPU time of one schedule, seconds. An agent that goes round for ever without a wait is ended by the kernel.
const SECONDS: u64 = 20;

/// Simulates the agent on fake runtimes under edits, outages, faults and kills, and checks its invariants.
#[derive(Debug, Parser)]
struct Arguments {
    /// Plays so many schedules
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first of their seeds
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    first: u64,
    /// Plays schedules for so long; without `--seeds`, 2 minutes
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<u64>,
    /// Plays so many of them at once
    #[arg(long, default_value_t = 1, conflicts_with = "seed")]
    jobs: usize,
    /// Plays the schedule of this seed, and prints its trace
    #[arg(long)]
    seed: Option<u64>,
    /// Plays the schedule of this seed in the directory of `--in`, and prints one line; for this program itself
    #[arg(long, hide = true, requires = "directory")]
    one: Option<u64>,
    #[arg(long = "in", id = "directory", hide = true)]
    directory: Option<PathBuf>,
    /// Breaks each line of the agent that can be broken, one at a time, until a schedule finds it
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "seed")]
    mutants: bool,
    /// Breaks one of these lines
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutant)]
    mutant: Option<stanchion_plan::mutant::Mutant>,
}

/// A schedule was not played.
#[derive(Debug)]
struct Unplayed;

impl fmt::Display for Unplayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot play the schedule")
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Unplayed>() { ExitCode::from(many::UNPLAYED) } else { ExitCode::FAILURE }
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // A write beyond the limit of a full disk then fails with an error.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block().context("cannot block a signal")?;
    #[cfg(feature = "mutants")]
    if let Some(mutant) = arguments.mutant {
        stanchion_plan::mutant::choose(mutant);
    }
    if let (Some(seed), Some(directory)) = (arguments.one, &arguments.directory) {
        let limit = Rlimit { current: Some(SECONDS), maximum: Some(2 * SECONDS) };
        setrlimit(Resource::Cpu, limit).context("cannot limit the time")?;
        let told = many::one(seed, directory).context(Unplayed)?;
        println!("{}", told.line());
        return Ok(());
    }
    if let Some(seed) = arguments.seed {
        return show(seed);
    }
    let minutes = arguments.minutes.or_else(|| arguments.seeds.is_none().then_some(2));
    let program = env::current_exe().context("this program has no file")?;
    #[cfg(feature = "mutants")]
    if arguments.mutants {
        return many::mutants(arguments.seeds.unwrap_or(10_000), &program);
    }
    let during = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let Arguments { first, seeds: count, jobs, .. } = *arguments;
    many::many(Which { first, count, during, jobs }, &program)
}

/// Returns the mutant of this name.
#[cfg(feature = "mutants")]
fn mutant(name: &str) -> Result<stanchion_plan::mutant::Mutant, String> {
    let all = stanchion_plan::mutant::Mutant::ALL;
    let found = all.into_iter().find(|mutant| format!("{mutant:?}") == name);
    found.ok_or_else(|| format!("there is no such mutant; there are {all:?}"))
}

/// Plays the schedule of a seed, and prints its trace.
fn show(seed: u64) -> Result<()> {
    let scratch = many::scratch()?;
    let outcome = play(seed, scratch.path(), true)?;
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("seed {seed}, hash {:016x}, at rest after {:?}", outcome.hash, outcome.rest);
    ensure!(outcome.broken.is_none(), "seed {seed}: {}", outcome.broken.unwrap_or_default());
    Ok(())
}
