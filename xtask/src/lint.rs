//! `cargo xtask lint`: checks formatting, dependencies and lints; skips checks whose tools are not installed.

use anyhow::{Context as _, Result};

use crate::{build, deps, say};

/// Runs all checks.
pub fn run() -> Result<()> {
    deps::ensure_all()?;
    formatting()?;
    dependencies()?;
    clippy()
}

/// Checks formatting.
pub fn formatting() -> Result<()> {
    check("rustfmt", "rustup component add rustfmt", &["fmt"], &["fmt", "--all", "--check"])
}

/// Runs clippy; every warning is an error.
pub fn clippy() -> Result<()> {
    let how = "rustup component add clippy";
    check("clippy", how, &["clippy"], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Checks licences, sources and versions of dependencies (`deny.toml`). Advisories are left out, because their database
/// is on GitHub: `cargo deny check advisories`.
fn dependencies() -> Result<()> {
    let how = "cargo install cargo-deny --locked";
    check("cargo-deny", how, &["deny"], &["deny", "check", "bans", "licenses", "sources"])
}

fn check(component: &str, how: &str, probe: &[&str], arguments: &[&str]) -> Result<()> {
    let present = build::cargo(&[probe, &["--version"]].concat())?.output().context("cannot start cargo")?;
    if present.status.success() {
        build::run(arguments)
    } else {
        say(format!("SKIPPED: {component} is not installed ({how})"));
        Ok(())
    }
}
