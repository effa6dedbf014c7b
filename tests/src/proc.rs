//! Processes, mounts and cgroups as the kernel shows them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// Process on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub pid: u32,
    /// Its command line, arguments joined by spaces.
    pub command: String,
}

/// Returns all processes that have a command line.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn processes() -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The process may have ended by now.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        if !line.is_empty() {
            let command = String::from_utf8_lossy(&line).trim_end_matches('\0').replace('\0', " ");
            seen.push(Seen { pid, command });
        }
    }
    Ok(seen)
}

/// Returns when a process started, in clock ticks after boot: with the pid, it identifies one process for ever.
///
/// # Errors
/// When there is no such process.
pub fn started(pid: u32) -> Result<u64> {
    stat(pid)?
        .get(19)
        .and_then(|field| field.parse().ok())
        .with_context(|| format!("/proc/{pid}/stat has no start time"))
}

/// Returns the CPU time that a process has used, without its ended children.
///
/// # Errors
/// When there is no such process.
pub fn cpu(pid: u32) -> Result<Duration> {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().with_context(|| format!("{pid} is no pid"))?);
    let clock = nix::time::clock_getcpuclockid(pid).with_context(|| format!("process {pid} has no CPU clock"))?;
    let used = clock.now().with_context(|| format!("the CPU clock of process {pid} cannot be read"))?;
    Ok(used.into())
}

/// Returns the time that the cores were idle since boot, all cores together; the kernel counts it in hundredths of a
/// second.
///
/// # Errors
/// When `/proc/stat` cannot be read or has no idle time.
pub fn idle() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let mut fields = text.lines().next().context("/proc/stat is empty")?.split_whitespace().skip(4);
    // `idle` and `iowait` (proc_stat(5)).
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (idle, waiting) = next().zip(next()).context("/proc/stat has no idle time")?;
    Ok(Duration::from_millis((idle + waiting) * 10))
}

/// Returns the memory of a process in bytes, shared pages divided among the processes that share them (`Pss`).
///
/// # Errors
/// When there is no such process.
pub fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no Pss"))? * 1024)
}

/// Returns the most memory that a process has had at one time, in bytes (`VmHWM`).
///
/// # Errors
/// When there is no such process.
pub fn peak(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{path} has no VmHWM"))? * 1024)
}

/// Returns the parent of a process; `None` when the process has ended.
///
/// # Errors
/// When `/proc/PID/stat` has no number for the parent.
pub fn parent(pid: u32) -> Result<Option<u32>> {
    let Ok(fields) = stat(pid) else { return Ok(None) };
    let parent = fields.get(1).and_then(|field| field.parse().ok());
    parent.map(Some).with_context(|| format!("/proc/{pid}/stat has no parent"))
}

/// Returns the mounts at and below `path` in a process's mount namespace, as `ro` or `rw`, sorted by path.
///
/// # Errors
/// When there is no such process.
pub fn access_below(pid: u32, path: &Path) -> Result<Vec<String>> {
    let table = format!("/proc/{pid}/mountinfo");
    let text = fs::read_to_string(&table).with_context(|| format!("cannot read {table}"))?;
    // Mount point and options (proc_pid_mountinfo(5), fields 5 and 6).
    let fields = text.lines().map(|line| line.split(' ').skip(4));
    let mut found: Vec<_> = fields.filter_map(|mut fields| fields.next().zip(fields.next())).collect();
    found.retain(|(point, _)| Path::new(point).starts_with(path));
    found.sort();
    Ok(found.iter().filter_map(|(_, options)| options.split(',').next()).map(str::to_owned).collect())
}

/// Returns whether a process exists and is no zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    stat(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state != "Z" && state != "X"))
}

/// Returns the fields of `/proc/PID/stat` from the state on: index 0 is field 3 of proc(5).
fn stat(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let rest = text.rsplit_once(')').with_context(|| format!("{path} has no command name"))?.1;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

/// Returns the mount points at or below `dir`, deepest last.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(|point| PathBuf::from(point.replace("\\040", " "))).filter(|point| point.starts_with(dir)).collect())
}

/// Returns the mount points of every cgroup hierarchy, v1 and v2.
///
/// # Errors
/// When the mount table cannot be read.
pub fn cgroup_hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let cgroups = table.lines().filter(|line| line.contains(" - cgroup ") || line.contains(" - cgroup2 "));
    Ok(cgroups.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect())
}

/// Returns the cgroups at and below `root` in every hierarchy, deepest first.
///
/// # Errors
/// When a hierarchy cannot be read.
pub fn cgroups(root: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in cgroup_hierarchies()? {
        descend(&hierarchy.join(root.trim_start_matches('/')), &mut found)?;
    }
    Ok(found)
}

fn descend(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    for entry in entries {
        // The entry and its directory may vanish meanwhile.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), found)?;
        }
    }
    found.push(dir.to_path_buf());
    Ok(())
}

/// Returns the memory limit of a process's cgroup, in bytes.
///
/// # Errors
/// When it has no such cgroup.
pub fn memory_limit(pid: u32) -> Result<String> {
    cgroup_value(pid, "memory", "memory.limit_in_bytes", "memory.max")
}

/// Returns the CPU quota of a process's cgroup: µs of CPU time, and µs of the period.
///
/// # Errors
/// When it has no such cgroup.
pub fn cpu_quota(pid: u32) -> Result<String> {
    if unified(pid)? {
        return cgroup_value(pid, "cpu", "", "cpu.max");
    }
    let quota = cgroup_value(pid, "cpu", "cpu.cfs_quota_us", "")?;
    Ok(format!("{quota} {}", cgroup_value(pid, "cpu", "cpu.cfs_period_us", "")?))
}

/// Returns `memory.oom.group`: whether the kernel kills the whole cgroup when it is out of memory. `None` on cgroup v1.
///
/// # Errors
/// When it has no such cgroup.
pub fn oom_group(pid: u32) -> Result<Option<String>> {
    if unified(pid)? { cgroup_value(pid, "memory", "", "memory.oom.group").map(Some) } else { Ok(None) }
}

/// Returns a process's cgroup in the hierarchy of a controller; for an empty `controller`, in the hierarchy of cgroup
/// v2.
///
/// # Errors
/// When it has none there.
pub fn cgroup(pid: u32, controller: &str) -> Result<String> {
    let own = memberships(pid)?.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|name| name == controller).then(|| fields.next().map(str::to_owned))?
    });
    own.with_context(|| format!("pid {pid} has no cgroup of {controller:?}"))
}

fn cgroup_value(pid: u32, controller: &str, v1: &str, v2: &str) -> Result<String> {
    let root = Path::new("/sys/fs/cgroup");
    let file = if unified(pid)? {
        root.join(cgroup(pid, "")?.trim_start_matches('/')).join(v2)
    } else {
        root.join(controller).join(cgroup(pid, controller)?.trim_start_matches('/')).join(v1)
    };
    Ok(fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?.trim().to_owned())
}

/// Returns whether all controllers are in the one hierarchy of cgroup v2.
fn unified(pid: u32) -> Result<bool> {
    Ok(memberships(pid)?.lines().count() == 1)
}

fn memberships(pid: u32) -> Result<String> {
    let path = format!("/proc/{pid}/cgroup");
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// Returns the environment that a process was started with.
///
/// # Errors
/// When there is no such process.
pub fn environment(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/environ");
    let bytes = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(bytes.split(|byte| *byte == 0).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect())
}
