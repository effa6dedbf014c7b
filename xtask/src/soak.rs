//! `cargo xtask soak`: runs the agent on real daemons under random edits, kills and hostile input, and reports faults.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use stanchion_tests::{
    Backend, slot,
    soak::{self, Group},
};

use crate::{build, deps, interrupt::Interrupt, say};

/// Arguments of `cargo xtask soak`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How long to begin new rounds, on each runtime
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Runtimes, one after the other: containerd, docker
    #[arg(long, value_delimiter = ',', default_value = "containerd,docker", value_parser = runtime)]
    runtime: Vec<Backend>,
    /// Repeats the choices of a run
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves out: edits, kills, clock, disk, firewall, hostile, archives
    #[arg(long, value_delimiter = ',')]
    without: Vec<Group>,
    /// Leaves Docker's live-restore off, so that its containers end with a dockerd that is killed
    #[arg(long)]
    no_live_restore: bool,
    /// Uses programs of the release profile
    #[arg(long)]
    release: bool,
    /// Uses the programs and libraries of this directory instead of building them
    #[arg(long, conflicts_with = "release")]
    programs: Option<PathBuf>,
}

/// Runs the soak and prints its table.
pub fn run(options: &Options) -> Result<()> {
    deps::ensure_all()?;
    for dir in slot::sweep()? {
        say(format!("removed what an earlier run left in {}", dir.display()));
    }
    let programs = build::chosen_programs(options.programs.as_deref(), options.release)?;
    let interrupt = Interrupt::watch()?;
    let seed = options.seed.unwrap_or_else(|| Timestamp::now().as_millisecond().unsigned_abs());
    let mut reports = Vec::new();
    for runtime in &options.runtime {
        let actions = soak::actions_dir(*runtime)?;
        say(format!(
            "{} minutes on {}, --seed {seed}; actions are written to {}",
            options.minutes,
            runtime.name(),
            actions.display()
        ));
        let run = soak::Options {
            runtime: *runtime,
            during: Duration::from_secs(options.minutes * 60),
            seed,
            without: options.without.clone(),
            live_restore: !options.no_live_restore,
            programs: Some(programs.clone()),
            actions,
        };
        reports.push(soak::run(&run, &|| interrupt.happened())?);
        if interrupt.happened() {
            break;
        }
    }
    println!("{}", soak::table(&reports));
    let faults: Vec<_> = reports
        .iter()
        .flat_map(|report| report.faults.iter().map(|fault| format!("{}: {fault}", report.runtime.name())))
        .collect();
    ensure!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}

fn runtime(name: &str) -> Result<Backend> {
    let named = [Backend::Containerd, Backend::Docker].into_iter().find(|runtime| runtime.name() == name);
    named.with_context(|| format!("no runtime {name:?}: there are containerd and docker"))
}
