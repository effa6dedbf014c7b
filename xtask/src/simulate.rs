//! `cargo xtask simulate`: plays schedules of edits, outages, faults and kills on the whole agent, which runs on fake runtimes
//! and paused time. A seed makes a schedule, and goes the same way each time.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::tools;

use crate::{build, say};

const PACKAGE: &str = "stanchion-simulation";
/// Profile of `Cargo.toml` for long runs.
const PROFILE: &str = "simulation";

/// Arguments of `cargo xtask simulate`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Plays so many schedules
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// The first of their seeds
    #[arg(long, conflicts_with = "seed")]
    first: Option<u64>,
    /// Plays schedules for so long; without `--seeds`, 2 minutes
    #[arg(long, conflicts_with = "seed")]
    minutes: Option<u64>,
    /// Plays so many of them at once
    #[arg(long, conflicts_with = "seed")]
    jobs: Option<u64>,
    /// Plays the schedule of this seed, and prints what happens
    #[arg(long)]
    seed: Option<u64>,
    /// Breaks lines of the agent, one at a time, until a schedule finds each
    #[arg(long, conflicts_with = "seed", conflicts_with = "minutes")]
    mutants: bool,
}

/// Builds the simulation and runs it.
pub fn run(options: &Options) -> Result<()> {
    let Options { seeds, first, minutes, jobs, seed, mutants } = options;
    let mut building = vec!["build", "--profile", PROFILE, "--package", PACKAGE];
    if *mutants {
        building.extend(["--features", "mutants"]);
    }
    build::run(&building)?;
    let mut arguments = Vec::new();
    let numbers = [("--seeds", seeds), ("--first", first), ("--minutes", minutes), ("--jobs", jobs), ("--seed", seed)];
    for (name, value) in numbers {
        arguments.extend(value.map(|value| format!("{name}={value}")));
    }
    arguments.extend(mutants.then(|| "--mutants".to_owned()));
    simulate(PROFILE, &arguments)
}

/// Runs the simulation for so many minutes, as it was built for the tests, with seeds of the day of the latest commit.
pub fn for_a_while(minutes: u64) -> Result<()> {
    let day = Command::new("git")
        .args(["log", "-1", "--format=%cd", "--date=format:%Y%m%d"])
        .current_dir(tools::workspace_dir())
        .output()
        .context("cannot start git")?;
    let day = String::from_utf8_lossy(&day.stdout).trim().to_owned();
    // An archive of the sources has no commits.
    let day: u64 = day.parse().unwrap_or(1);
    let arguments = [format!("--first={}", day * 1_000_000), format!("--minutes={minutes}")];
    simulate("debug", &arguments)
}

fn simulate(profile: &str, arguments: &[String]) -> Result<()> {
    let program = tools::target_dir()?.join(profile).join("simulate");
    say(format!("simulate {}", arguments.join(" ")));
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "the simulation ended with {status}");
    Ok(())
}
