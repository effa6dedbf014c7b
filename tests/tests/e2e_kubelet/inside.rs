//! What a pod's containers see, and what the machine sees of them.

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

/// Everything at once: the recordings call it "what the container sees".
const ALL: &str = r#"echo "== env"; env | sort; echo "== id"; id; echo "== hostname"; hostname; hostname -f
echo "== /etc/hosts"; cat /etc/hosts; echo "== /etc/resolv.conf"; cat /etc/resolv.conf
echo "== first process"; tr "\0" " " </proc/1/cmdline; echo; grep -E "^(Cap|NoNew|Seccomp:|Groups|Uid|Gid)" /proc/1/status
echo "== mounts"; awk '$2 !~ "^/(proc|sys|dev)" { split($4, o, ","); print $2, o[1] "," o[2] }' /proc/mounts | sort"#;

/// Values of the cgroup hierarchy: hierarchy and files.
const VALUES: [(&str, &[&str]); 4] = [
    ("cpu", &["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"]),
    ("memory", &["memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes"]),
    ("pids", &["pids.max"]),
    ("cpuset", &["cpuset.cpus"]),
];

/// A pod to be looked into.
pub struct Inside<'a> {
    pub node: &'a Node,
    pub words: &'a Words,
    pub identity: &'a Identity,
    pub pod: &'a Value,
    /// Where its host paths are.
    pub dir: &'a Path,
}

impl Inside<'_> {
    /// The answers to a step's question, each under the recording's name for it, in the recording's words.
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
        // The exit code of what was run is not the recording's business, and is told on its last line.
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
        // The pod's cgroup may be below another that the runtime makes for all.
        let place = place.find("/kubepods").map_or(place.as_str(), |at| &place[at..]);
        let place = place.split("/pod").next().unwrap_or_default().to_owned() + "/pod<uid>";
        seen.insert(format!("cgroup of the pod: {place}"), values(parent)?.join("\n"));
        Ok(seen)
    }

    /// The request that a hook sent to the machine, which the container that answered it has written down.
    fn request(&self) -> Result<String> {
        let entries = fs::read_dir(self.dir).context("reading the scenario's directory")?.flatten();
        let mut files = entries.map(|entry| entry.path()).filter(|path| path.is_file() && !path.ends_with("trace"));
        let path = files.next().context("nothing has written a request down")?;
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The host files as the recording lists them: first what is in the directory, then what is named below.
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

/// Lines with the machine's own by the recordings' names: dates, its disk, what its kernel says more of an overlay, and numbers
/// that are chance.
pub fn plain(text: &str) -> Vec<String> {
    let line = |line: &str| by_chance(&dated(&on_disk(line))).replace(",uuid=on", "");
    let mut lines: Vec<_> = text.lines().map(line).collect();
    // In which order a runtime mounts is its own affair.
    let is_mount = |line: &String| line.starts_with("on /");
    lines.chunk_by_mut(|a, b| is_mount(a) && is_mount(b)).for_each(|mounts| {
        if mounts.len() > 1 {
            mounts.sort();
        }
    });
    lines
}

/// The ids of processes, and the length of a link whose name has a random number.
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

/// `Nov 28 07:20` and `Jan  1  1970` are dates.
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
