//! `cargo xtask lint`: checks formatting, dependencies and lints; skips checks whose tools are not installed.

use anyhow::{Context as _, Result, ensure};

use crate::{build, deps, say};

/// Runs all checks.
pub fn run() -> Result<()> {
    deps::ensure_all()?;
    formatting()?;
    dependencies()?;
    clippy()?;
    documentation()
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

/// Builds the documentation as it is published, and with private items: a link that leads nowhere is an error.
pub fn documentation() -> Result<()> {
    let published = ["doc", "--workspace", "--no-deps"];
    let whole = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    for (arguments, denied) in [(&published[..], "private_intra_doc_links"), (&whole[..], "broken_intra_doc_links")] {
        say(format!("cargo {}", arguments.join(" ")));
        let mut command = build::cargo(arguments)?;
        let status =
            command.env("RUSTDOCFLAGS", format!("-D rustdoc::{denied}")).status().context("cannot start cargo")?;
        ensure!(status.success(), "the documentation has links that lead nowhere ({status})");
    }
    Ok(())
}

/// Checks licences, sources and versions of dependencies (`deny.toml`), and known vulnerabilities wherever their database
/// can be fetched: it is on GitHub.
fn dependencies() -> Result<()> {
    let how = "cargo install cargo-deny --locked";
    check("cargo-deny", how, &["deny"], &["deny", "check", "bans", "licenses", "sources"])?;
    let fetched = build::cargo(&["deny", "fetch", "db"])?.output().context("cannot start cargo")?;
    if fetched.status.success() {
        return build::run(&["deny", "check", "--disable-fetch", "advisories"]);
    }
    let said = String::from_utf8_lossy(&fetched.stderr);
    let why = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("cargo-deny is not installed");
    say(format!("SKIPPED: known vulnerabilities, because their database cannot be fetched: {}", why.trim()));
    Ok(())
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
