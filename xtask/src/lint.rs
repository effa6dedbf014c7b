//! `cargo xtask lint`: formatting and clippy, where the toolchain has them.

use anyhow::{Context as _, Result};

use crate::{build, deps, say};

/// Checks both.
pub fn run() -> Result<()> {
    deps::ensure_all()?;
    formatting()?;
    clippy()
}

/// Checks formatting.
pub fn formatting() -> Result<()> {
    check("rustfmt", &["fmt"], &["fmt", "--all", "--check"])
}

/// Checks lints; every warning is an error.
pub fn clippy() -> Result<()> {
    check("clippy", &["clippy"], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

fn check(component: &str, probe: &[&str], arguments: &[&str]) -> Result<()> {
    let present = build::cargo(&[probe, &["--version"]].concat())?.output().context("cannot start cargo")?;
    if present.status.success() {
        build::run(arguments)
    } else {
        say(format!("SKIPPED: {component} is not installed (rustup component add {component})"));
        Ok(())
    }
}
