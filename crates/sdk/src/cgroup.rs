//! Creation, reading and removal of cgroups: OCI runtimes manage a container's cgroup, but not the pod's around it.

mod limits;
mod parent;
mod systemd;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        statfs::{CGROUP2_SUPER_MAGIC, statfs},
    },
    unistd::Pid,
};
use stanchion_untrusted::read_kernel;

pub use parent::{Driver, Parent};

/// Mount point of cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Number of attempts to remove a cgroup whose processes were killed: they need a moment to end.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// A cgroup, in every hierarchy that has it.
#[derive(Clone, Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Returns the cgroup at a path from the root of each hierarchy, e.g. `/stanchion/pod4f2a/redis-0-…`.
    #[must_use]
    pub fn at(path: &str) -> Self {
        Self(PathBuf::from(path.trim_start_matches('/')))
    }

    fn places(&self) -> impl Iterator<Item = PathBuf> {
        hierarchies().iter().map(|hierarchy| hierarchy.place.join(&self.0))
    }

    /// Reads the first of these files that a hierarchy has: the names in v1 and v2 differ.
    fn read(&self, names: &[&str]) -> Option<String> {
        self.places().flat_map(|place| names.iter().map(move |name| place.join(name))).find_map(|file| {
            // Most hierarchies do not have the file, so an error is normal.
            read_kernel(file).ok()
        })
    }

    /// Reads a file with one number.
    #[must_use]
    pub fn number(&self, names: &[&str]) -> Option<u64> {
        self.read(names)?.trim().parse().ok()
    }

    /// Reads a field of a file with lines of name and number.
    #[must_use]
    pub fn field(&self, file: &str, field: &str) -> Option<u64> {
        let text = self.read(&[file])?;
        text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ')?.trim().parse().ok())
    }

    /// Sets `memory.oom.group`, so that the OOM killer kills all processes of the cgroup and not just one. Only cgroup
    /// v2 has this (R-RES-15).
    ///
    /// # Errors
    /// The kernel refuses. An absent cgroup is no error.
    pub fn die_together(&self) -> io::Result<()> {
        let places = hierarchies().iter().filter(|it| it.is_unified && it.controllers.iter().any(|it| it == "memory"));
        places.map(|it| it.place.join(&self.0)).try_for_each(|place| {
            match fs::write(place.join("memory.oom.group"), "1") {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                written => written,
            }
        })
    }

    /// Returns the number of processes and threads in the cgroup; `None` if it is gone.
    #[must_use]
    pub fn population(&self) -> Option<u64> {
        self.number(&["pids.current"]).or_else(|| {
            let processes = self.read(&["cgroup.procs"])?.lines().count();
            u64::try_from(processes).ok()
        })
    }

    /// Returns the PIDs, as this process sees them, of the processes in the cgroup and below it.
    #[must_use]
    pub fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        // Most hierarchies have the same processes, so the first one with any is enough.
        for place in self.places() {
            let mut open = vec![place];
            while let Some(place) = open.pop() {
                // A cgroup that is gone has no such file.
                let members = read_kernel(place.join("cgroup.procs")).unwrap_or_default();
                found.extend(members.lines().filter_map(|line| line.parse::<i32>().ok()));
                let below = fs::read_dir(&place).into_iter().flatten().flatten();
                open.extend(below.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()));
            }
            if !found.is_empty() {
                break;
            }
        }
        found
    }

    /// Returns whether the OOM killer has killed a process in the cgroup. The kernel keeps the count until the cgroup
    /// is removed.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        let kills = self.field("memory.oom_control", "oom_kill").or_else(|| self.field("memory.events", "oom_kill"));
        kills.unwrap_or(0) > 0
    }

    /// Removes the cgroup if it is empty. A cgroup in use stays: it belongs to another incarnation of the pod.
    ///
    /// # Errors
    /// The kernel refuses for another reason.
    pub fn remove(&self) -> io::Result<()> {
        self.places().try_for_each(|place| match fs::remove_dir(place) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ResourceBusy) => Ok(()),
            removed => removed,
        })
    }

    /// Returns the names of the child cgroups, in any hierarchy.
    ///
    /// # Errors
    /// The kernel refuses. An absent cgroup has no children.
    pub fn children(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for place in self.places() {
            names.extend(children(&place)?);
        }
        Ok(names)
    }

    /// Kills all processes in the cgroup and below it, which no runtime manages any more, and removes these cgroups.
    ///
    /// # Errors
    /// Some processes cannot be killed, or do not end.
    pub async fn destroy(&self) -> io::Result<()> {
        for place in self.places() {
            for tried in 1.. {
                match remove_tree(&place) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy && tried < TRIES => {}
                    removed => {
                        removed?;
                        break;
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }
}

/// Returns the names of the child cgroups of the one at this path.
fn children(place: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
            Ok(_) => {}
            // The cgroup was removed while it was read.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENODEV as i32) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// Kills the processes in a cgroup and below it, and removes these cgroups from the inside out; `ResourceBusy` while a
/// process is ending.
fn remove_tree(place: &Path) -> io::Result<()> {
    let mut found = vec![place.to_path_buf()];
    // Parents come before their children.
    let mut at = 0;
    while let Some(next) = found.get(at).cloned() {
        found.extend(children(&next)?.into_iter().map(|name| next.join(name)));
        at += 1;
    }
    for place in found.iter().rev() {
        match fs::remove_dir(place) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                kill_all(place)?;
                return Err(error);
            }
            removed => removed?,
        }
    }
    Ok(())
}

fn kill_all(place: &Path) -> io::Result<()> {
    let members = match read_kernel(place.join("cgroup.procs")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        members => members?,
    };
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Err(error) if error != nix::errno::Errno::ESRCH => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether the node has cgroup v2 only.
#[must_use]
pub fn is_unified() -> bool {
    statfs(ROOT).is_ok_and(|it| it.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

/// Returns whether the kernel can limit swap.
#[must_use]
pub fn limits_swap() -> bool {
    match is_unified() {
        true => Path::new("/proc/swaps").exists(),
        false => hierarchies().iter().any(|hierarchy| hierarchy.place.join("memory.memsw.limit_in_bytes").exists()),
    }
}

/// Returns whether a path only goes down: no `..`, and no `.` at its start.
#[must_use]
pub fn is_plain(path: &Path) -> bool {
    use std::path::Component::{Normal, RootDir};
    path.components().all(|part| matches!(part, Normal(_) | RootDir))
}

/// Returns whether the node's cgroups have a controller, e.g. `hugetlb`.
#[must_use]
pub fn has_controller(name: &str) -> bool {
    hierarchies().iter().any(|hierarchy| hierarchy.controllers.iter().any(|it| it == name))
}

/// A mounted cgroup hierarchy.
#[derive(Debug)]
struct Hierarchy {
    place: PathBuf,
    is_unified: bool,
    controllers: Vec<String>,
}

/// Returns the hierarchies, v1 and v2 (proc_pid_mountinfo(5)). They do not change while a node is up.
fn hierarchies() -> &'static [Hierarchy] {
    static HIERARCHIES: OnceLock<Vec<Hierarchy>> = OnceLock::new();
    HIERARCHIES.get_or_init(|| {
        let table = read_kernel("/proc/self/mountinfo").unwrap_or_default();
        table.lines().filter_map(hierarchy).collect()
    })
}

/// Parses a line of the mount table: `36 35 98:0 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu`.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, what) = line.split_once(" - ")?;
    let place = PathBuf::from(mount.split(' ').nth(4)?);
    let mut what = what.split(' ');
    let is_unified = match what.next()? {
        "cgroup" => false,
        "cgroup2" => true,
        _ => return None,
    };
    let controllers = match is_unified {
        // Beside v1 hierarchies, the v2 hierarchy is for systemd only, whatever controllers it has.
        true if place != Path::new(ROOT) => String::new(),
        true => read_kernel(place.join("cgroup.controllers")).unwrap_or_default(),
        false => what.nth(1)?.replace(',', " "),
    };
    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
    Some(Hierarchy { place, is_unified, controllers })
}

#[cfg(test)]
mod tests {
    use super::hierarchy;

    #[test]
    fn hierarchies_are_found_among_the_mounts() {
        let line = "36 35 0:31 / /sys/fs/cgroup/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let found = hierarchy(line).expect("a hierarchy");
        assert_eq!((found.place.to_str(), found.is_unified), (Some("/sys/fs/cgroup/cpu"), false));
        assert!(found.controllers.iter().any(|it| it == "cpu"));
        assert!(hierarchy("1 0 8:1 / / rw - ext4 /dev/sda1 rw").is_none());
        assert!(hierarchy("1 0 0:3 / /sys/fs/cgroup rw - tmpfs tmpfs rw").is_none());
    }
}
