//! Remains of a run: on the node, and in the agent.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::Soak;
use crate::{Node, proc, remains, until};

/// Time limit until the node is empty again.
const CLEAR: std::time::Duration = std::time::Duration::from_secs(180);

/// Most memory of an agent at any time, in bytes: five times the need of an agent with some pods, in a build without
/// optimization.
const MOST_MEMORY: u64 = 256 << 20;
/// Most growth of an agent's memory between the first and the last look at it, in bytes.
const MOST_GROWTH: u64 = 48 << 20;
/// Most descriptors that an agent without pods may have beyond those of one that has just started: connections to the
/// runtime and watches that it opens on demand and keeps. A leak of one descriptor for each pod would exceed this by
/// far.
const MOST_DESCRIPTORS: usize = 16;

/// Measurements of a run's agents: the agent is killed now and then.
#[derive(Debug, Default)]
pub(super) struct Agents {
    /// Descriptors of an agent that has no pods yet, counted by target.
    empty: BTreeMap<String, usize>,
    /// PID of the running agent, and its memory when it was first looked at.
    present: Option<(u32, u64)>,
    peak: u64,
    growth: u64,
}

impl Agents {
    /// Measures an agent that has no pods yet.
    pub(super) fn empty(&mut self, node: &Node) -> Result<()> {
        let pid = node.agent.id().context("the agent runs")?;
        self.empty = descriptors(pid)?;
        Ok(())
    }

    /// Measures the running agent when the node has settled.
    pub(super) fn look(&mut self, node: &Node) -> Result<()> {
        let pid = node.agent.id().context("the agent runs")?;
        let memory = proc::pss(pid)?;
        self.peak = self.peak.max(proc::peak(pid)?);
        match self.present {
            Some((known, first)) if known == pid => self.growth = self.growth.max(memory.saturating_sub(first)),
            _ => self.present = Some((pid, memory)),
        }
        Ok(())
    }
}

/// Remains of a run.
#[derive(Debug, Default)]
pub struct Left {
    /// Things that should not be there.
    pub things: Vec<String>,
    /// Things that are left over for a known reason.
    pub excused: Vec<String>,
    /// Most memory of an agent, in bytes.
    pub peak: u64,
    /// Most growth of an agent's memory, in bytes.
    pub growth: u64,
    /// Descriptors of the agent beyond those that it began with.
    pub descriptors: Vec<String>,
}

impl Left {
    /// Returns a message for each thing left over and each limit exceeded.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<_> = self.things.iter().map(|thing| format!("left over: {thing}")).collect();
        if self.peak > MOST_MEMORY {
            faults.push(format!("an agent had {} MiB of memory, more than {}", self.peak >> 20, MOST_MEMORY >> 20));
        }
        if self.growth > MOST_GROWTH {
            faults.push(format!("an agent grew by {} MiB, more than {}", self.growth >> 20, MOST_GROWTH >> 20));
        }
        if self.descriptors.len() > MOST_DESCRIPTORS {
            faults.push(format!("the agent has more open descriptors than at its start: {:?}", self.descriptors));
        }
        faults
    }
}

/// Returns why something may be left over, if it may: a program that was killed has left it, and no other program can
/// remove it safely.
fn excuse(thing: &str, is_in_one_piece: impl Fn(&str) -> bool) -> Option<&'static str> {
    if thing.starts_with("lease ") && thing.contains("containerd.io/gc.expire=") {
        return Some("a lease of a download whose agent was killed: containerd removes it when it expires");
    }
    if thing.starts_with("mount ") && thing.contains("/overlay2/") && thing.ends_with("-init/merged") {
        return Some(
            "the first layer of a container that dockerd was making when it was killed: it does not unmount it later",
        );
    }
    match thing.strip_prefix("link ") {
        Some(link) if is_in_one_piece(link) => {
            Some("a pair of links that dockerd had made and not yet given to a container when it was killed")
        }
        _ => None,
    }
}

/// Returns whether both ends of a veth pair are in this network namespace.
fn is_in_one_piece(link: &str) -> bool {
    let number = |link: &Path, file: &str| fs::read_to_string(link.join(file)).unwrap_or_default().trim().to_owned();
    let links = Path::new("/sys/class/net");
    let peer = number(&links.join(link), "iflink");
    let all = fs::read_dir(links).into_iter().flatten().flatten();
    !peer.is_empty()
        && all.map(|entry| entry.path()).any(|other| !other.ends_with(link) && number(&other, "ifindex") == peer)
}

impl Soak {
    /// Removes every manifest, waits until nothing is left or the time is over, and returns what is left.
    pub(super) fn clear(&mut self) -> Result<Left> {
        self.free_disk()?;
        self.remove_all()?;
        self.look_after_the_agent()?;
        let node = &self.node;
        let has_docker = node.docker.is_some();
        let excused = |thing: &str| excuse(thing, |link| has_docker && is_in_one_piece(link));
        let is_fault = |thing: &str| excused(thing).is_none();
        let is_clear = until("nothing to be left", CLEAR, || {
            let things = things(node)?;
            let left: Vec<_> = things.iter().filter(|thing| is_fault(thing)).collect();
            ensure!(left.is_empty(), "there is {left:?}");
            // A starting agent has not looked yet.
            node.agent.json(&["get", "nodes"]).map(drop)
        });
        if let Err(error) = is_clear {
            self.journal.say("not clear", &format!("{error:#}"))?;
        }
        self.look_after_the_agent()?;
        let (things, excused): (Vec<_>, Vec<_>) = things(&self.node)?.into_iter().partition(|thing| is_fault(thing));
        for thing in &excused {
            self.journal.say("excused", &format!("{thing}: {}", excuse(thing, |_| true).unwrap_or_default()))?;
        }
        let pid = self.node.agent.id().context("the agent runs")?;
        self.agents.peak = self.agents.peak.max(proc::peak(pid)?);
        let descriptors = more(&self.agents.empty, &descriptors(pid)?);
        self.journal.say("more descriptors", &descriptors.join(", "))?;
        Ok(Left { things, excused, peak: self.agents.peak, growth: self.agents.growth, descriptors })
    }
}

fn things(node: &Node) -> Result<Vec<String>> {
    let mut found = node.remains()?;
    let mut note = |what: &str, dir: &Path| {
        found.extend(remains::files(dir).into_iter().map(|path| format!("{what} {}", path.display())));
    };
    note("temporary file", &node.path("tmp"));
    note("kept manifest", &node.path("state/manifests"));
    // The agent keeps a source's `.directory` record while the source is configured.
    found.retain(|thing| !thing.ends_with("/.directory"));
    Ok(found)
}

/// Returns the descriptors of a process, counted by target.
fn descriptors(pid: u32) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let dir = format!("/proc/{pid}/fd");
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))? {
        // The descriptor may have been closed since.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.display().to_string();
        let kind = target.split_once(":[").map_or(target.as_str(), |(kind, _)| kind).to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    Ok(counts)
}

/// Returns the entries that `now` has more of than `before`.
fn more(before: &BTreeMap<String, usize>, now: &BTreeMap<String, usize>) -> Vec<String> {
    let extra = now.iter().flat_map(|(kind, count)| {
        let known = before.get(kind).copied().unwrap_or_default();
        std::iter::repeat_n(kind.clone(), count.saturating_sub(known))
    });
    extra.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{excuse, more};

    #[test]
    fn only_what_is_new_counts() {
        let counts =
            |list: &[(&str, usize)]| list.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect::<BTreeMap<_, _>>();
        let (before, now) = (counts(&[("socket", 2), ("/a", 1)]), counts(&[("socket", 3), ("/b", 1)]));
        assert_eq!(more(&before, &now), ["/b", "socket"]);
    }

    #[test]
    fn what_others_have_left_is_excused() {
        let is_excused = |thing| excuse(thing, |link| link == "veth1").is_some();
        assert!(is_excused("lease abc 2026-11-28 containerd.io/gc.expire=2026-11-29"));
        assert!(!is_excused("lease abc 2026-11-28"));
        assert!(!is_excused("cgroup containerd.io/gc.expire="));
        assert!(is_excused("mount /a/docker/data/overlay2/5b53-init/merged"));
        assert!(!is_excused("mount /a/docker/data/overlay2/5b53/merged"));
        assert!(is_excused("link veth1"));
        assert!(!is_excused("link veth2"));
    }
}
