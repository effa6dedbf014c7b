//! Report of a soak, as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use super::left::Left;
use crate::view::Backend;

/// Kinds of things left over, as [`Node::remains`](crate::Node::remains) and the soak name them.
const KINDS: [&str; 17] = [
    "process",
    "task",
    "container",
    "snapshot",
    "volume",
    "lease",
    "unfinished download",
    "mount",
    "cgroup",
    "runc record",
    "link",
    "packet filter rule",
    "pod directory",
    "log directory",
    "runtime file",
    "temporary file",
    "kept manifest",
];

/// Actions and findings of a run.
#[derive(Debug)]
pub struct Report {
    /// Runtime of the pods.
    pub runtime: Backend,
    /// Seed that repeats the run's choices.
    pub seed: u64,
    /// Time that the rounds took.
    pub took: Duration,
    /// Number of rounds done.
    pub rounds: u64,
    /// Number of actions of each kind.
    pub counts: BTreeMap<String, u64>,
    /// Longest time from the end of a round's actions until the node had settled.
    pub longest: Duration,
    /// Things left over.
    pub left: Left,
    /// Faults found.
    pub faults: Vec<String>,
    /// Path of the log of all actions.
    pub actions: PathBuf,
}

impl Report {
    fn cell(&self, row: &str) -> String {
        let of_left = |kind: &str| self.left.things.iter().filter(|thing| kind_of(thing) == kind).count();
        match row {
            "seed" => self.seed.to_string(),
            "minutes" => format!("{:.1}", self.took.as_secs_f64() / 60.0),
            "rounds" => self.rounds.to_string(),
            "longest time to settle" => format!("{:.1} s", self.longest.as_secs_f64()),
            "faults" => self.faults.len().to_string(),
            "most memory of the agent" => format!("{} MiB", self.left.peak >> 20),
            "most growth of its memory" => format!("{:.1} MiB", self.left.growth as f64 / f64::from(1 << 20)),
            "more descriptors than at its start" => self.left.descriptors.len().to_string(),
            "left over by others (excused)" => self.left.excused.len().to_string(),
            _ => match row.strip_prefix("left over: ") {
                Some(kind) => of_left(kind).to_string(),
                None => self.counts.get(row).copied().unwrap_or_default().to_string(),
            },
        }
    }
}

/// Returns the kind of something left over: the longest kind that its description starts with.
fn kind_of(thing: &str) -> &str {
    let begins = |kind: &&&str| thing.strip_prefix(**kind).is_some_and(|rest| rest.starts_with(' '));
    KINDS.iter().filter(begins).max_by_key(|kind| kind.len()).copied().unwrap_or("other")
}

/// Returns a Markdown table with the reports side by side.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let head: Vec<_> = reports.iter().map(|report| report.runtime.name()).collect();
    let mut lines = vec![format!("| | {} |", head.join(" | ")), format!("|---|{}", "---:|".repeat(head.len()))];
    let counted: BTreeSet<_> = reports.iter().flat_map(|report| report.counts.keys()).cloned().collect();
    let counted = counted.into_iter().filter(|kind| kind != "round" && kind != "fault");
    let first = ["seed", "minutes", "rounds"].map(str::to_owned).into_iter();
    let left = KINDS.iter().map(|kind| format!("left over: {kind}"));
    let last = [
        "left over by others (excused)",
        "longest time to settle",
        "most memory of the agent",
        "most growth of its memory",
        "more descriptors than at its start",
        "faults",
    ];
    for row in first.chain(counted).chain(left).chain(last.map(str::to_owned)) {
        let cells: Vec<_> = reports.iter().map(|report| report.cell(&row)).collect();
        lines.push(format!("| {row} | {} |", cells.join(" | ")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::kind_of;

    #[test]
    fn what_is_left_over_has_a_kind() {
        assert_eq!(kind_of("runc record /run/containerd/runc/a"), "runc record");
        assert_eq!(kind_of("process 12 sleep 3600"), "process");
        assert_eq!(kind_of("container abc"), "container");
        assert_eq!(kind_of("strange thing"), "other");
    }
}
