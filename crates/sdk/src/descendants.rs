//! Search for the processes that an exec has started, wherever they went, and their end.
//!
//! A process leaves its parent (by a double fork), its session (setsid(2)) and its environment (`env -i`) at will, and
//! all execs of a container share the container's cgroup. A resource limit stays with a process that does not try to
//! change it: fork(2) and execve(2) pass it on. The mark of an exec is the value of `RLIMIT_LOCKS`, which no kernel
//! since 2.4.25 heeds (getrlimit(2)). A runtime that cannot set limits for an exec passes the mark in an environment
//! variable, and the backend sets the limit as soon as it knows the process; it finds processes started before that by
//! their session and parents.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, prlimit};
use stanchion_runtime::{Descendants, blocking};
use stanchion_untrusted::{Links, read_start, read_text};

use crate::{cgroup::Cgroup, limits};

/// Maximum number of searches for the processes of an exec, and the pause between: a killed process needs a moment to
/// end.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// Number of first searches that kill only processes without children, so that their parents can reap them. A process
/// killed together with its parent stays a zombie if the container's first process does not reap.
const GENTLE: u32 = 10;

/// Environment variable with the mark, for execs that cannot have their own limits.
const VARIABLE: &str = "STANCHION_EXEC=";

/// First 24 bits of every mark: `STX`, for Stanchion's exec.
const MAGIC: u64 = 0x0053_5458 << 40;
const MAGIC_BITS: u64 = 0x00ff_ffff << 40;
/// Flag in the mark of an exec with `Descendants::End`.
const ENDS: u64 = 1 << 36;
/// Bits that identify one run of the agent.
const LIFE_BITS: u64 = 0xffff << 20;
const NUMBER_BITS: u64 = (1 << 20) - 1;

/// Mark of one exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// Returns a new mark; `None` for an exec whose processes stay.
    #[must_use]
    pub fn new(descendants: Descendants) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) & NUMBER_BITS;
        match descendants {
            Descendants::Stay => None,
            Descendants::EndIfGivenUp => Some(Self(MAGIC | life() | number)),
            Descendants::End => Some(Self(MAGIC | ENDS | life() | number)),
        }
    }

    /// Returns the value for `RLIMIT_LOCKS`, soft and hard.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.0
    }

    /// Returns the environment variable with the mark.
    #[must_use]
    pub fn variable(self) -> String {
        format!("{VARIABLE}{:x}", self.0)
    }

    /// Marks a process and the processes that it has started so far. It skips those that are gone, or that it may not
    /// limit.
    pub fn put(self, cgroup: &Cgroup, leader: u32) {
        for number in self.among(&cgroup.processes(), Some(leader)).keys() {
            let Some(pid) = Pid::from_raw(*number) else { continue };
            let limit = Rlimit { current: Some(self.0), maximum: Some(self.0) };
            if let Err(error) = prlimit(Some(pid), Resource::Locks, limit) {
                tracing::debug!(pid = number, %error, "a process of an exec is not marked");
            }
        }
    }

    /// Kills the exec's processes in the container's cgroup, and those that `Descendants::End` execs of an earlier run
    /// of the agent have left there. `leader` is the PID of the exec's first process, if that may carry no mark.
    ///
    /// # Errors
    /// Some processes cannot be killed, or do not end.
    pub async fn end(self, cgroup: &Cgroup, leader: Option<u32>) -> io::Result<()> {
        for round in 0..ROUNDS {
            let cgroup = cgroup.clone();
            let left = move || self.kill(&cgroup.processes(), leader, round < GENTLE);
            if blocking(left).await? == 0 {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "some of its processes do not end"))
    }

    /// Kills the exec's processes among these: all, or only those without children. Returns the number of the exec's
    /// processes.
    fn kill(self, processes: &BTreeSet<i32>, leader: Option<u32>, only_childless: bool) -> io::Result<usize> {
        let all = self.among(processes, leader);
        let parents: BTreeSet<_> = all.values().map(|stat| stat.parent).collect();
        for (number, stat) in &all {
            let Some(pid) = Pid::from_raw(*number).filter(|_| !only_childless || !parents.contains(number)) else {
                continue;
            };
            let handle = match pidfd_open(pid, PidfdFlags::empty()) {
                Err(rustix::io::Errno::SRCH) => continue,
                handle => handle?,
            };
            // The PID may have been reused before the pidfd was opened, so the start times must be equal.
            if Stat::of(*number).is_some_and(|now| now.begun == stat.begun) {
                match pidfd_send_signal(&handle, Signal::KILL) {
                    Err(rustix::io::Errno::SRCH) => {}
                    sent => sent?,
                }
            }
        }
        Ok(all.len())
    }

    /// Returns the processes among these that the exec has started and that have not ended.
    fn among(self, processes: &BTreeSet<i32>, leader: Option<u32>) -> BTreeMap<i32, Stat> {
        let living = |pid: &i32| Some((*pid, Stat::of(*pid)?));
        let mut others: BTreeMap<i32, Stat> = processes.iter().filter(|pid| **pid > 1).filter_map(living).collect();
        let leader = leader.and_then(|leader| i32::try_from(leader).ok());
        let mut found: BTreeMap<i32, Stat> = BTreeMap::new();
        loop {
            let is_its = |pid: &i32, stat: &Stat| {
                leader.is_some_and(|leader| stat.session == leader)
                    || found.contains_key(&stat.parent)
                    || (found.is_empty() && self.is_on(*pid))
            };
            let more: Vec<_> = others.iter().filter(|(pid, stat)| is_its(pid, stat)).map(|(pid, _)| *pid).collect();
            if more.is_empty() {
                break;
            }
            found.extend(more.into_iter().filter_map(|pid| Some((pid, others.remove(&pid)?))));
        }
        found
    }

    /// Returns whether a process carries this mark, or that of a `Descendants::End` exec of an earlier run of the
    /// agent.
    fn is_on(self, pid: i32) -> bool {
        let is_meant = |mark: u64| {
            mark == self.0 || (mark & MAGIC_BITS == MAGIC && mark & ENDS != 0 && mark & LIFE_BITS != life())
        };
        limit_of(pid).is_some_and(is_meant) || variable_of(pid).is_some_and(is_meant)
    }
}

/// Returns the bits that identify this run of the agent.
fn life() -> u64 {
    static LIFE: OnceLock<u64> = OnceLock::new();
    *LIFE.get_or_init(|| {
        // No two processes since boot have the same PID and the same start time in hundredths of a second.
        let begun = Stat::of(i32::try_from(std::process::id()).unwrap_or(0)).map_or(0, |stat| stat.begun);
        (u64::from(std::process::id()).wrapping_mul(0x9e37) ^ begun) << 20 & LIFE_BITS
    })
}

/// Returns the mark in a process's limits (proc_pid_limits(5)).
fn limit_of(pid: i32) -> Option<u64> {
    let limits = read_text(format!("/proc/{pid}/limits"), Links::Refuse, limits::PROCESS).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the mark in a process's environment (proc_pid_environ(5)).
fn variable_of(pid: i32) -> Option<u64> {
    let environment = read_start(format!("/proc/{pid}/environ"), Links::Refuse, limits::ENVIRONMENT).ok()?;
    let marks = environment.split(|byte| *byte == 0).filter_map(|variable| variable.strip_prefix(VARIABLE.as_bytes()));
    // A process can change its copy of the environment. The first variable is the one that it was given.
    let mark = marks.map(|mark| std::str::from_utf8(mark).ok()).next()??;
    u64::from_str_radix(mark, 16).ok()
}

/// Fields of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: i32,
    session: i32,
    /// Start time in clock ticks after boot.
    begun: u64,
}

impl Stat {
    /// Reads the fields of a process; `None` if it has ended.
    fn of(pid: i32) -> Option<Self> {
        let text = read_start(format!("/proc/{pid}/stat"), Links::Refuse, limits::PROCESS).ok()?;
        // The process chooses the name in brackets, which may contain brackets; so the last one ends it.
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<_> = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X" | "x") {
            return None;
        }
        let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
        Some(Self { parent: number(1)?, session: number(3)?, begun: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// Scripts whose processes leave their parent in different ways. Each sleeps for a different time.
    const WAYS: [&str; 5] = [
        "sleep 7251; true",
        "sleep 7252 & true",
        "(setsid sleep 7253 &) ; true",
        "env -i setsid sh -c '(sleep 7254 &)'; true",
        "trap '' TERM HUP; (trap '' TERM; setsid sh -c 'while :; do sleep 7255; done' &); sleep 7255",
    ];

    fn all() -> BTreeSet<i32> {
        let entries = std::fs::read_dir("/proc").expect("it is there").flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn sleepers(seconds: u32) -> Vec<i32> {
        let is_it = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Stat::of(*pid).is_some() && line == format!("sleep\0{seconds}\0").as_bytes()
        };
        all().into_iter().filter(is_it).collect()
    }

    /// Starts a script that waits until it is marked.
    fn start(script: &str, mark: impl FnOnce(&Child)) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("it runs");
        mark(&child);
        child.stdin.take().expect("piped").write_all(b"go\n").expect("it reads");
        child
    }

    fn limited(mark: Mark) -> impl FnOnce(&Child) {
        move |child| {
            let limit = Rlimit { current: Some(mark.limit()), maximum: Some(mark.limit()) };
            let pid = Pid::from_child(child);
            prlimit(Some(pid), Resource::Locks, limit).expect("it is ours");
        }
    }

    /// Polls, without a clock, until the condition holds.
    fn until(mut what: impl FnMut() -> bool) {
        while !what() {
            std::thread::yield_now();
        }
    }

    fn end(mark: Mark) {
        let mut gentle = 0;
        until(|| {
            gentle += 1;
            mark.kill(&all(), None, gentle < GENTLE).expect("killed") == 0
        });
    }

    #[test]
    fn what_an_exec_has_started_ends_however_it_left() {
        for (number, script) in (7251..).zip(WAYS) {
            let mark = Mark::new(Descendants::End).expect("a mark");
            let other = Mark::new(Descendants::End).expect("a mark");
            let mut bystander = start("sleep 7250", limited(other));
            until(|| !sleepers(7250).is_empty());
            let mut child = start(script, limited(mark));
            until(|| !sleepers(number).is_empty());
            end(mark);
            child.wait().expect("it has ended");
            assert_eq!(sleepers(number), Vec::<i32>::new(), "{script}");
            assert!(bystander.try_wait().expect("asked").is_none(), "another exec lives on");
            end(other);
            bystander.wait().expect("it has ended");
        }
    }

    #[test]
    fn a_shell_collects_what_is_killed_below_it() {
        let mark = Mark::new(Descendants::End).expect("a mark");
        let mut child = start("sleep 7260; exit 3", limited(mark));
        until(|| !sleepers(7260).is_empty());
        mark.kill(&all(), None, true).expect("killed");
        assert_eq!(child.wait().expect("it has ended").code(), Some(3), "only the command below it was killed");
    }

    #[test]
    fn a_mark_is_read_from_the_environment() {
        let mark = Mark::new(Descendants::EndIfGivenUp).expect("a mark");
        let (name, value) = (VARIABLE.trim_end_matches('='), mark.variable().split_off(VARIABLE.len()));
        let mut child = Command::new("sleep").arg("7270").env(name, value).spawn().expect("it runs");
        until(|| !sleepers(7270).is_empty());
        let pid = i32::try_from(child.id()).expect("a number");
        assert!(mark.is_on(pid));
        assert!(!Mark::new(Descendants::End).expect("a mark").is_on(pid), "a hook's processes are nobody else's");
        end(mark);
        child.wait().expect("it has ended");
    }
}
