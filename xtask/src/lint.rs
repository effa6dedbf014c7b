//! `cargo xtask lint`: formatting, clippy, and what may be linked, where the tools for it are installed.

use anyhow::{Context as _, Result};

use crate::{build, deps, say};

/// Checks all of it.
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

/// Checks lints; every warning is an error.
pub fn clippy() -> Result<()> {
    let how = "rustup component add clippy";
    check("clippy", how, &["clippy"], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Checks licences, sources and versions of what is linked (`deny.toml`). Advisories need their database, and so GitHub:
/// `cargo deny check advisories`.
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
