//! Runs cargo.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::tools;

use crate::say;

/// The packages whose programs and libraries make a node.
const PROGRAMS: [&str; 4] = ["stanchion", "stanchion-logger", "stanchion-containerd", "stanchion-docker"];

/// Builds the agent, its logger and the backends; gives the directory with all of them.
pub fn programs(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build"];
    if release {
        arguments.push("--release");
    }
    arguments.extend(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    run(&arguments)?;
    Ok(tools::target_dir()?.join(if release { "release" } else { "debug" }))
}

/// Runs cargo, which must succeed.
pub fn run(arguments: &[&str]) -> Result<()> {
    say(format!("cargo {}", arguments.join(" ")));
    let status = cargo(arguments)?.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// Cargo in the workspace, building where this program was built.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(tools::workspace_dir()).env("CARGO_TARGET_DIR", tools::target_dir()?);
    Ok(command)
}
