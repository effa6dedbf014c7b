//! Runs cargo.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::tools;

use crate::say;

/// Packages with the programs and libraries of a node.
const PROGRAMS: [&str; 4] = ["stanchion", "stanchion-logger", "stanchion-containerd", "stanchion-docker"];

/// Builds the agent, its logger and the backends; returns their directory.
pub fn programs(release: bool) -> Result<PathBuf> {
    let mut arguments = vec!["build"];
    if release {
        arguments.push("--release");
    }
    arguments.extend(PROGRAMS.iter().flat_map(|package| ["--package", package]));
    run(&arguments)?;
    Ok(tools::target_dir()?.join(if release { "release" } else { "debug" }))
}

/// Returns the directory of programs and libraries that the user has chosen, or else builds them. The agent loads no
/// library by a relative path.
pub fn chosen_programs(chosen: Option<&Path>, release: bool) -> Result<PathBuf> {
    match chosen {
        Some(dir) => dir.canonicalize().with_context(|| format!("cannot find {}", dir.display())),
        None => programs(release),
    }
}

/// Runs cargo; fails if cargo does.
pub fn run(arguments: &[&str]) -> Result<()> {
    say(format!("cargo {}", arguments.join(" ")));
    let status = cargo(arguments)?.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// Returns a cargo command in the workspace, with the target directory of this program.
pub fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(tools::workspace_dir()).env("CARGO_TARGET_DIR", tools::target_dir()?);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::chosen_programs;

    #[test]
    fn a_chosen_directory_is_absolute_and_there() {
        let here = std::env::current_dir().and_then(|dir| dir.canonicalize()).expect("it is there");
        assert_eq!(chosen_programs(Some(Path::new("src/..")), false).expect("it is there"), here);
        let error = chosen_programs(Some(Path::new("no/such")), false).expect_err("it is not there");
        assert_eq!(error.to_string(), "cannot find no/such");
    }
}
