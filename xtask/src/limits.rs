//! `cargo xtask limits`: writes docs/limits.md from the modules that declare the limits.

use std::fs;

use anyhow::{Context as _, Result};
use stanchion_tests::{limits, tools};

use crate::say;

pub fn run() -> Result<()> {
    let root = tools::workspace_dir();
    let found = limits::collect(&root)?;
    let path = root.join("docs/limits.md");
    fs::write(&path, limits::page(&found)).with_context(|| format!("cannot write {}", path.display()))?;
    say(format!("{} limits written to {}", found.len(), path.display()));
    Ok(())
}
