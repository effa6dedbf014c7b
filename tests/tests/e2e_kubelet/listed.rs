//! Where Stanchion is another than a kubelet, on purpose.

use std::{collections::BTreeSet, fs, path::Path, sync::Mutex};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use stanchion_tests::{Backend, golden::compare::Difference, wait::lock};

/// The list for one runtime.
pub struct Listed {
    entries: Vec<Entry>,
    met: Mutex<BTreeSet<usize>>,
}

/// One difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Area and name of the recording; `every` where it is in all of them.
    scenario: String,
    /// The place, as the comparison names it; without the file where it is in all recordings of pods.
    path: String,
    /// Only on that runtime.
    #[serde(default)]
    on: Option<String>,
    /// Whether it differs at some moments only.
    #[serde(default)]
    sometimes: bool,
    /// The rule that wants it, or the reason.
    #[serde(rename = "why")]
    _why: String,
}

impl Listed {
    /// Reads the section `kubelet`: a line of JSON for each.
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

    /// Those of a scenario's differences that are not listed.
    pub fn unlisted(&self, scenario: &str, found: Vec<Difference>) -> Vec<Difference> {
        found.into_iter().filter(|it| self.find(scenario, it).is_none()).collect()
    }

    /// Notes what was met.
    pub fn meet(&self, scenario: &str, found: &[Difference]) {
        let met = found.iter().filter_map(|it| self.find(scenario, it));
        lock(&self.met).extend(met);
    }

    /// A difference that is listed for a scenario and not for some moments only must be there.
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
