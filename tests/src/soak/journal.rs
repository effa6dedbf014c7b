//! Log of a soak's actions, with times.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

/// Log of a run's actions.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    started: Instant,
    counts: BTreeMap<String, u64>,
}

impl Journal {
    /// Starts a new log in this directory.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("actions.log");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path, file, started: Instant::now(), counts: BTreeMap::new() })
    }

    /// Writes one line and counts its kind.
    pub(super) fn note(&mut self, kind: &str, text: &str) -> Result<()> {
        *self.counts.entry(kind.to_owned()).or_default() += 1;
        self.say(kind, text)
    }

    /// Writes one line without counting it as an action.
    pub(super) fn say(&mut self, kind: &str, text: &str) -> Result<()> {
        let elapsed = self.started.elapsed().as_secs_f64();
        writeln!(self.file, "{} {elapsed:8.3} {kind}: {text}", Timestamp::now())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Returns how often each kind was done.
    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
