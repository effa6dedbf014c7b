//! Processes, mounts, links, rules, cgroups and files under the names of a test node, and their removal.

use std::{fs, io, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

use crate::{
    proc::{self, Seen},
    process,
    slot::Names,
    tools, until,
};

/// Environment variable with the node's directory: marks processes of a node whose command line does not name it.
pub(crate) const NODE: &str = "STANCHION_TEST_NODE";

/// Returns the processes that have the node's directory in their command line, its mark in their environment, or are in
/// its cgroups.
///
/// # Errors
/// When `/proc` or a cgroup cannot be read.
pub fn processes(names: &Names) -> Result<Vec<Seen>> {
    // The slash keeps slot 1 from matching slot 10.
    let dir = format!("{}/", names.dir.display());
    let own = std::process::id();
    let contained = contained(names)?;
    let mark = format!("{NODE}={}", names.dir.display());
    let is_marked = |pid: u32| proc::environment(pid).unwrap_or_default().contains(&mark);
    let names_it = |seen: &Seen| seen.command.contains(&dir) || is_marked(seen.pid);
    let ours = |seen: &Seen| seen.pid != own && (names_it(seen) || contained.contains(&seen.pid));
    Ok(proc::processes()?.into_iter().filter(ours).collect())
}

fn contained(names: &Names) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for group in proc::cgroups(&names.cgroup)? {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        pids.extend(members.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Returns the links that are ports of the node's bridge; with `bridge`, the bridge too.
///
/// # Errors
/// When `ip` fails.
pub fn links(names: &Names, bridge: bool) -> Result<Vec<String>> {
    let all: Vec<Value> = json(process::text(tools::command("ip")?.args(["-j", "link", "show"]))?.trim())?;
    let text = |link: &Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
    Ok(all
        .iter()
        .filter(|link| text(link, "master") == names.bridge || (bridge && text(link, "ifname") == names.bridge))
        .map(|link| text(link, "ifname"))
        .collect())
}

/// Returns the lines of packet filter rules that have an address of one of this node's pods.
///
/// # Errors
/// When `nft` fails.
pub fn rules(names: &Names) -> Result<Vec<String>> {
    let all = process::text(tools::command("nft")?.args(["list", "ruleset"]))?;
    Ok(all.lines().filter(|line| names_a_pod(line, &names.prefix)).map(|line| line.trim().to_owned()).collect())
}

/// Returns family and name of the packet filter's tables for this node's bridge.
fn tables(names: &Names) -> Result<Vec<(String, String)>> {
    let all = process::text(tools::command("nft")?.args(["list", "tables"]))?;
    let named = all.lines().filter_map(|line| line.strip_prefix("table ")?.split_once(' '));
    let ending = format!("_{}", names.bridge);
    let ours = named.filter(|(_, table)| table.ends_with(&ending));
    Ok(ours.map(|(family, table)| (family.to_owned(), table.to_owned())).collect())
}

/// Returns whether a rule has an address below `prefix` other than those of the network, the gateway and broadcast.
fn names_a_pod(line: &str, prefix: &str) -> bool {
    let prefix = format!("{prefix}.");
    line.match_indices(&prefix).any(|(at, _)| {
        let rest = &line[at + prefix.len()..];
        let last = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        !matches!(last, "0" | "1" | "255")
    })
}

fn json(text: &str) -> Result<Vec<Value>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).context("cannot read the JSON that ip printed")
}

/// Removes everything under these names. The order matters: processes, mounts, links, cgroups, files.
///
/// # Errors
/// When something cannot be removed.
pub fn erase(names: &Names) -> Result<()> {
    until("processes of an old test node to end", Duration::from_secs(20), || {
        let left = processes(names)?;
        for seen in &left {
            if let Some(pid) = i32::try_from(seen.pid).ok().and_then(Pid::from_raw) {
                // The process may have ended by now.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        if left.is_empty() { Ok(()) } else { Err(anyhow::anyhow!("still there: {left:?}")) }
    })?;
    for point in proc::mounts_below(&names.dir)?.into_iter().rev() {
        unmount(&point, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
    }
    erase_network(names)?;
    erase_runc(names)?;
    for group in proc::cgroups(&names.cgroup)? {
        until("a cgroup to become empty", Duration::from_secs(5), || match fs::remove_dir(&group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err((group.clone(), error)),
            _ => Ok(()),
        })?;
    }
    match fs::remove_dir_all(&names.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", names.dir.display()))
        }
        _ => Ok(()),
    }
}

fn erase_network(names: &Names) -> Result<()> {
    for link in links(names, true)? {
        // The removal of one end of a pair removes the other, and the kernel removes both when a network namespace
        // ends.
        process::output(tools::command("ip")?.args(["link", "delete", &link]), Duration::from_secs(10))?;
    }
    for (family, table) in tables(names)? {
        process::text(tools::command("nft")?.args(["delete", "table", &family, &table]))?;
    }
    Ok(())
}

/// Returns runc's records of this node's containers. runc has one directory for all containerds of the machine, and
/// refuses an id that is recorded there.
pub fn runc_records(names: &Names) -> Vec<PathBuf> {
    let dir = format!("{}/", names.dir.display());
    let below = |dir: &PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let namespaces = below(&PathBuf::from("/run/containerd/runc"));
    let records = namespaces.flat_map(|namespace| below(&namespace).collect::<Vec<_>>());
    records.filter(|record| fs::read_to_string(record.join("state.json")).is_ok_and(|it| it.contains(&dir))).collect()
}

fn erase_runc(names: &Names) -> Result<()> {
    for record in runc_records(names) {
        fs::remove_dir_all(&record).with_context(|| format!("cannot remove {}", record.display()))?;
    }
    // Only the directory of this node's namespace is removed, and only when it is empty.
    let namespace = PathBuf::from("/run/containerd/runc").join(&names.namespace);
    match fs::remove_dir(&namespace) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(error).with_context(|| format!("cannot remove {}", namespace.display()))
        }
        _ => Ok(()),
    }
}

/// Returns everything below `dir` that is not a directory; ignores errors.
#[must_use]
pub fn files(dir: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(next) = todo.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::names_a_pod;

    #[test]
    fn only_pod_addresses_are_remains() {
        let rule = |text: &str| names_a_pod(text, "10.213.4");
        assert!(rule("tcp dport 8080 dnat to 10.213.4.7:80"));
        assert!(rule("ip saddr 10.213.4.17 accept"));
        assert!(!rule("ip saddr 10.213.4.0/24 masquerade"));
        assert!(!rule("ip daddr 10.213.40.7 accept"));
    }
}
