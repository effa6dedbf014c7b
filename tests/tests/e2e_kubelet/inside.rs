//! Answers to the recordings' questions about a pod: what its containers see, and what the machine sees of them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use stanchion_tests::{Node, ctr::Running, golden::Words, http, proc};

use crate::scenario::Identity;

/// Script for the question that the recordings call "what the container sees".
const ALL: &str = r#"echo "== env"; env | sort; echo "== id"; id; echo "== hostname"; hostname; hostname -f
echo "== /etc/hosts"; cat /etc/hosts; echo "== /etc/resolv.conf"; cat /etc/resolv.conf
echo "== first process"; tr "\0" " " </proc/1/cmdline; echo; grep -E "^(Cap|NoNew|Seccomp:|Groups|Uid|Gid)" /proc/1/status
echo "== mounts"; awk '$2 !~ "^/(proc|sys|dev)" { split($4, o, ","); print $2, o[1] "," o[2] }' /proc/mounts | sort"#;

/// Files to read in each cgroup v1 hierarchy.
const VALUES: [(&str, &[&str]); 4] = [
    ("cpu", &["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"]),
    ("memory", &["memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes"]),
    ("pids", &["pids.max"]),
    ("cpuset", &["cpuset.cpus"]),
];

/// Pod to answer questions about.
pub struct Inside<'a> {
    pub node: &'a Node,
    pub words: &'a Words,
    pub identity: &'a Identity,
    pub pod: &'a Value,
    /// Directory of the scenario's `hostPath` volumes.
    pub dir: &'a Path,
}

impl Inside<'_> {
    /// Answers a step's question. Keys and values use the recording's placeholders.
    pub fn look(&self, question: &str, recorded: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        if question.trim() == "the cgroup values" {
            return self.cgroups();
        }
        let (name, said) = if let Some(url) = question.strip_prefix("from the machine: GET ") {
            (question.to_owned(), http::page(url)?)
        } else if question == "on the machine: ls -ln" {
            (question.to_owned(), self.files(recorded.get(question).map_or("", String::as_str))?)
        } else if question == "CPUs of the machine" {
            let cpus = std::thread::available_parallelism().context("the machine's CPUs")?;
            (question.to_owned(), cpus.to_string())
        } else if question == "the request the hook sent" {
            (question.to_owned(), self.request()?)
        } else if let Some(container) = question.trim().strip_prefix("the log of ") {
            (format!("log of {container}"), self.log(container)?)
        } else if let Some((container, command)) = question.split_once(": ") {
            let script = if command == "what the container sees" { ALL } else { command };
            (format!("{container}$ {command}"), self.run(container, script)?)
        } else {
            bail!("{question:?} is not understood")
        };
        let words = self.words.of(self.pod);
        let said = words.theirs(&said);
        Ok(BTreeMap::from([(self.words.theirs(&name), said.trim_end().to_owned())]))
    }

    fn name(&self) -> String {
        self.words.ours(&self.identity.name)
    }

    fn run(&self, container: &str, script: &str) -> Result<String> {
        let (name, namespace) = (self.name(), &self.identity.namespace);
        let arguments = ["exec", &name, "-n", namespace, "-c", container, "--", "sh", "-c", script];
        let output = self.node.agent.cli(&arguments)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (said, errors) = (text(output.stdout), text(output.stderr));
        // `exec` reports the exit code on a line of its own, which the recordings do not have.
        let errors: Vec<_> = errors.lines().filter(|line| !line.starts_with("command terminated")).collect();
        Ok(if errors.is_empty() { said } else { format!("{said}\n{}", errors.join("\n")) })
    }

    fn log(&self, container: &str) -> Result<String> {
        let (name, namespace) = (self.name(), &self.identity.namespace);
        self.node.agent.text(&["logs", &name, "-n", namespace, "-c", container])
    }

    fn cgroups(&self) -> Result<BTreeMap<String, String>> {
        let running = self.node.view().of_pod(&self.name())?;
        let mut seen = BTreeMap::new();
        for container in &running {
            let own = |hierarchy: &str| proc::cgroup(container.pid, hierarchy);
            let mut lines = values(own)?;
            let score =
                fs::read_to_string(format!("/proc/{}/oom_score_adj", container.pid)).context("reading a score")?;
            lines.push(format!("oom_score_adj={}", score.trim()));
            seen.insert(format!("cgroup of container {}", container.record.container()), lines.join("\n"));
        }
        let first: &Running = running.first().context("nothing of the pod runs")?;
        let parent = |hierarchy: &str| {
            let own = proc::cgroup(first.pid, hierarchy)?;
            own.rsplit_once('/').map(|(parent, _)| parent.to_owned()).context("a container's cgroup is in its pod's")
        };
        let place = self.words.theirs(&parent("cpu")?);
        // The runtime may put the pods' root cgroup below one of its own.
        let place = place.find("/kubepods").map_or(place.as_str(), |at| &place[at..]);
        let place = place.split("/pod").next().unwrap_or_default().to_owned() + "/pod<uid>";
        seen.insert(format!("cgroup of the pod: {place}"), values(parent)?.join("\n"));
        Ok(seen)
    }

    /// Returns the request of an HTTP hook, which the container that answered it wrote to a file.
    fn request(&self) -> Result<String> {
        let entries = fs::read_dir(self.dir).context("reading the scenario's directory")?.flatten();
        let mut files = entries.map(|entry| entry.path()).filter(|path| path.is_file() && !path.ends_with("trace"));
        let path = files.next().context("nothing has written a request down")?;
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Lists the host files as the recording does: first the directory's entries, then the files below that it names.
    fn files(&self, recorded: &str) -> Result<String> {
        let entries = fs::read_dir(self.dir).context("reading the scenario's directory")?.flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names.extend(
            recorded
                .lines()
                .filter_map(|line| line.rsplit(' ').next())
                .filter(|it| it.contains('/'))
                .map(str::to_owned),
        );
        let line = |name: &String| {
            let about = fs::symlink_metadata(self.dir.join(name)).with_context(|| format!("looking at {name}"))?;
            let kind = match about.file_type() {
                kind if kind.is_dir() => 'd',
                kind if kind.is_socket() => 's',
                _ => '-',
            };
            Ok(format!("{kind}{} {} {} {name}", mode(about.mode()), about.uid(), about.gid()))
        };
        Ok(names.iter().map(line).collect::<Result<Vec<_>>>()?.join("\n"))
    }
}

fn mode(mode: u32) -> String {
    let bit = |place: u32| if mode & (1 << place) == 0 { '-' } else { ['x', 'w', 'r'][place as usize % 3] };
    (0..9).rev().map(bit).collect()
}

fn values(of: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (hierarchy, files) in VALUES {
        let cgroup = of(hierarchy)?;
        for file in files {
            let path = format!("/sys/fs/cgroup/{hierarchy}{cgroup}/{file}");
            let value = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            lines.push(format!("{file}={}", value.trim()));
        }
    }
    Ok(lines)
}

/// Splits a text into lines and replaces what differs between machines: dates, the disk's file system, the overlay
/// option `uuid=on`, and random numbers. Adjacent mounts are sorted.
pub fn plain(text: &str) -> Vec<String> {
    let line = |line: &str| by_chance(&dated(&on_disk(line))).replace(",uuid=on", "");
    let mut lines: Vec<_> = text.lines().map(line).collect();
    // The order of mounts is up to the runtime.
    let is_mount = |line: &String| line.starts_with("on /");
    lines.chunk_by_mut(|a, b| is_mount(a) && is_mount(b)).for_each(|mounts| {
        if mounts.len() > 1 {
            mounts.sort();
        }
    });
    lines
}

/// Replaces process IDs; drops the `ls` columns of a `..data` link, whose target has a random name.
fn by_chance(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        [id, "root", ..] if id.parse::<u32>().is_ok() => line.replacen(id, "<pid>", 1).trim_start().to_owned(),
        [.., "<date>", "..data", "->", "..<stamp>"] => "..data -> ..<stamp>".to_owned(),
        _ => line.to_owned(),
    }
}

fn on_disk(line: &str) -> String {
    let Some((place, rest)) = line.strip_prefix("on ").and_then(|line| line.split_once(" type ")) else {
        return line.to_owned();
    };
    let is_disk = ["ext4 ", "xfs ", "btrfs "].iter().any(|kind| rest.starts_with(kind));
    let access = if rest.contains("(ro") { "ro" } else { "rw" };
    if is_disk { format!("on {place} type <disk> ({access})") } else { line.to_owned() }
}

/// Replaces dates such as `Nov 28 07:20` and `Jan  1  1970`.
fn dated(line: &str) -> String {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let is_month = |word: &str| word.len() == 3 && MONTHS.contains(word);
    let words: Vec<_> = line.split(' ').collect();
    let Some(at) = words.iter().position(|word| is_month(word)) else { return line.to_owned() };
    let rest: Vec<_> = words[at + 1..].iter().enumerate().filter(|(_, word)| !word.is_empty()).take(2).collect();
    let [(_, day), (end, time)] = rest[..] else { return line.to_owned() };
    let is_time = time.bytes().all(|it| it.is_ascii_digit() || it == b':');
    if !is_time || day.parse::<u8>().is_err() {
        return line.to_owned();
    }
    let (before, after) = (words[..at].join(" "), words[at + 2 + end..].join(" "));
    format!("{before} <date> {after}").trim().to_owned()
}
