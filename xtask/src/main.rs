//! `cargo xtask demo | test | lint | bench | soak | simulate | rules | limits | fuzz | vm`: development tasks, which fetch
//! what they need.

mod bench;
mod build;
mod demo;
mod deps;
mod fuzz;
mod interrupt;
mod limits;
mod lint;
mod rules;
mod simulate;
mod soak;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Development tasks of Stanchion.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the redis static pod on a containerd of its own; leaves nothing behind on Ctrl-C
    Demo(demo::Options),
    /// Fetch what the tests need and run them all
    Test(test::Options),
    /// Check formatting and lints
    Lint,
    /// Measure the agent beside `ctr run -d` and `docker run -d`; prints Markdown
    Bench(bench::Options),
    /// Try the agent with random edits, kills and hostile input, for as long as asked; prints Markdown
    Soak(soak::Options),
    /// Try the agent on fake runtimes and paused time, with schedules that are made from seeds
    Simulate(simulate::Options),
    /// Print the rules with the tests that prove them
    Rules(rules::Options),
    /// Write docs/limits.md from the modules that declare the limits
    Limits,
    /// Try the decoder of manifests with inputs that libFuzzer makes up
    Fuzz(fuzz::Options),
    /// Run end-to-end tests on an emulated Debian 13 with cgroup v2 and systemd, and reboot it
    Vm(vm::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Lint => lint::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Simulate(options) => simulate::run(&options),
        Task::Rules(options) => rules::run(&options),
        Task::Limits => limits::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Vm(options) => vm::run(&options),
    };
    finish(result)
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a progress line.
fn say(text: impl std::fmt::Display) {
    eprintln!("==> {text}");
}
