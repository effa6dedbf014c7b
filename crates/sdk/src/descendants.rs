//! The processes that an exec has started: found wherever they went, and ended.
//!
//! A process leaves its parent (by a double fork), its session (setsid(2)) and its environment (`env -i`) at will, and all
//! execs of a container share the container's cgroup. A resource limit stays with a process that does not try to change it:
//! fork(2) and execve(2) pass it on. The mark of an exec is the value of `RLIMIT_LOCKS`, which no kernel since 2.4.25
//! heeds (getrlimit(2)). A runtime that cannot set limits for an exec passes the mark in an environment variable, and the
//! limit is set as soon as the process is known; processes that it started before that are found by their session and parents.

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
use stanchion_runtime::Descendants;
use stanchion_untrusted::{Links, read_start, read_text};

use crate::{cgroup::Cgroup, limits};

/// The most searches for the processes of an exec, and the pause between: a killed process needs a moment to end.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);
/// Number of searches at the beginning that kill only processes without children. Their parents wait for them: a process that is
/// killed with its parent stays a zombie in a container whose first process waits for nobody.
const GENTLE: u32 = 10;

/// The variable that carries a mark where an exec can have no limits of its own.
const VARIABLE: &str = "STANCHION_EXEC=";

/// The beginning of every mark, in its upper 24 bits: `STX`, for Stanchion's exec.
const MAGIC: u64 = 0x0053_5458 << 40;
const MAGIC_BITS: u64 = 0x00ff_ffff << 40;
/// Set in the mark of an exec whose processes end with it.
const ENDS: u64 = 1 << 36;
/// Bits that tell one life of the agent from another.
const LIFE_BITS: u64 = 0xffff << 20;
const NUMBER_BITS: u64 = (1 << 20) - 1;

/// The mark of one exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// A new mark; `None` for an exec whose processes are its caller's own affair.
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

    /// The value for `RLIMIT_LOCKS`, soft and hard.
    #[must_use]
    pub fn limit(self) -> u64 {
        self.0
    }

    /// The variable for the environment.
    #[must_use]
    pub fn variable(self) -> String {
        format!("{VARIABLE}{:x}", self.0)
    }

    /// Marks a process and the processes that it has started so far. Those that are gone, or may not be limited, are passed over.
    pub fn put(self, cgroup: &Cgroup, leader: u32) {
        for number in self.among(&cgroup.processes(), Some(leader)).keys() {
            let Some(pid) = Pid::from_raw(*number) else { continue };
            let limit = Rlimit { current: Some(self.0), maximum: Some(self.0) };
            if let Err(error) = prlimit(Some(pid), Resource::Locks, limit) {
                tracing::debug!(pid = number, %error, "a process of an exec is not marked");
            }
        }
    }

    /// Ends the exec's processes that are in the container's cgroup, and those that a former life of the agent has left.
    /// `leader` is the first of them where it may bear no mark.
    ///
    /// # Errors
    /// They cannot be killed, or do not end.
    pub async fn end(self, cgroup: &Cgroup, leader: Option<u32>) -> io::Result<()> {
        for round in 0..ROUNDS {
            let cgroup = cgroup.clone();
            let left = move || self.kill(&cgroup.processes(), leader, round < GENTLE);
            if tokio::task::spawn_blocking(left).await?? == 0 {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "some of its processes do not end"))
    }

    /// Kills the exec's processes among these: all, or only those without children. Returns the number of the exec's processes.
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
            // Looked at again now that it is held: the number may have become another's.
            if Stat::of(*number).is_some_and(|now| now.begun == stat.begun) {
                match pidfd_send_signal(&handle, Signal::KILL) {
                    Err(rustix::io::Errno::SRCH) => {}
                    sent => sent?,
                }
            }
        }
        Ok(all.len())
    }

    /// Those of these processes that the exec has started and that have not ended.
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

    /// Tells whether a process bears this mark, or that of an exec of a former life of the agent whose processes end with it.
    fn is_on(self, pid: i32) -> bool {
        let is_meant = |mark: u64| {
            mark == self.0 || (mark & MAGIC_BITS == MAGIC && mark & ENDS != 0 && mark & LIFE_BITS != life())
        };
        limit_of(pid).is_some_and(is_meant) || variable_of(pid).is_some_and(is_meant)
    }
}

/// Tells this life of the agent from others.
fn life() -> u64 {
    static LIFE: OnceLock<u64> = OnceLock::new();
    *LIFE.get_or_init(|| {
        // Two processes with the same number that began in the same hundredth of a second after boot do not exist.
        let begun = Stat::of(i32::try_from(std::process::id()).unwrap_or(0)).map_or(0, |stat| stat.begun);
        (u64::from(std::process::id()).wrapping_mul(0x9e37) ^ begun) << 20 & LIFE_BITS
    })
}

/// The mark in a process's limits (proc_pid_limits(5)).
fn limit_of(pid: i32) -> Option<u64> {
    let limits = read_text(format!("/proc/{pid}/limits"), Links::Refuse, limits::PROCESS).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The mark in a process's environment (proc_pid_environ(5)).
fn variable_of(pid: i32) -> Option<u64> {
    let environment = read_start(format!("/proc/{pid}/environ"), Links::Refuse, limits::ENVIRONMENT).ok()?;
    let marks = environment.split(|byte| *byte == 0).filter_map(|variable| variable.strip_prefix(VARIABLE.as_bytes()));
    // A process can change its copy. The first is the one that it was given.
    let mark = marks.map(|mark| std::str::from_utf8(mark).ok()).next()??;
    u64::from_str_radix(mark, 16).ok()
}

/// The fields of a process's state that are used (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug)]
struct Stat {
    parent: i32,
    session: i32,
    /// In clock ticks after boot.
    begun: u64,
}

impl Stat {
    /// `None` for one that has ended.
    fn of(pid: i32) -> Option<Self> {
        let text = read_start(format!("/proc/{pid}/stat"), Links::Refuse, limits::PROCESS).ok()?;
        // The name before the last bracket is the process's own choice.
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

    /// The ways in which processes leave the one that started them. Each sleeps for a time of its own.
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

    /// Runs a script that begins when it is marked.
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

    /// Waits, without a clock, for what a script does.
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
