//! Intended differences between Stanchion and a kubelet (`tests/golden/differences.yaml`).

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use stanchion_tests::{Backend, golden::compare::Difference, wait::lock};

/// Intended differences on one runtime.
pub struct Listed {
    entries: Vec<Entry>,
    met: Mutex<BTreeSet<usize>>,
}

/// Intended difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Area and name of the recording; `every` for all recordings.
    scenario: String,
    /// Place, as [`Difference::path`] has it; for `every`, without the file.
    path: String,
    /// Runtime that the difference is limited to.
    #[serde(default)]
    on: Option<String>,
    /// Whether the difference depends on timing, and so need not occur.
    #[serde(default)]
    sometimes: bool,
    /// Rule that requires the difference, or the reason.
    #[serde(rename = "why")]
    _why: String,
}

impl Listed {
    /// Reads the section `kubelet`: one line of JSON per difference.
    pub fn read(path: &Path, on: Backend) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let section = text.split_once("\nkubelet:\n").context("differences.yaml has no section for the kubelet")?.1;
        let lines = section.lines().filter_map(|line| line.trim().strip_prefix("- "));
        let entry = |line| serde_json::from_str::<Entry>(line).with_context(|| format!("a difference: {line}"));
        let entries: Vec<_> = lines.map(entry).collect::<Result<_>>()?;
        let is_here = |entry: &Entry| entry.on.as_deref().is_none_or(|runtime| runtime == on.name());
        let entries = entries.into_iter().filter(is_here).collect();
        Ok(Self { entries, met: Mutex::default() })
    }

    /// Returns those of a scenario's differences that are not listed.
    pub fn unlisted(&self, scenario: &str, found: Vec<Difference>) -> Vec<Difference> {
        found.into_iter().filter(|it| self.find(scenario, it).is_none()).collect()
    }

    /// Records which listed differences occurred.
    pub fn meet(&self, scenario: &str, found: &[Difference]) {
        let met = found.iter().filter_map(|it| self.find(scenario, it));
        lock(&self.met).extend(met);
    }

    /// Checks that every difference listed for the scenario has occurred, unless it is marked `sometimes`.
    pub fn check(&self, scenario: &str) -> Result<()> {
        let met = lock(&self.met);
        let own = self.entries.iter().enumerate().filter(|(_, entry)| entry.scenario == scenario && !entry.sometimes);
        let gone: Vec<_> = own.filter(|(place, _)| !met.contains(place)).map(|(_, entry)| &entry.path).collect();
        ensure!(gone.is_empty(), "listed, but it does not differ: {gone:#?}");
        Ok(())
    }

    fn find(&self, scenario: &str, found: &Difference) -> Option<usize> {
        let field = found.path.strip_prefix("pod").and_then(|path| path.split_once(": ")).map(|(_, field)| field);
        let is_meant = |entry: &Entry| match entry.scenario.as_str() {
            "every" => field == Some(&entry.path),
            one => one == scenario && entry.path == found.path,
        };
        self.entries.iter().position(is_meant)
    }
}
