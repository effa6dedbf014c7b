//! OOM kills of containers, on cgroup v2.
//!
//! There, Docker learns of an OOM kill from an event of containerd's, and reports none if the container's end overtakes
//! that. The kernel counts such kills in the pod's cgroup too, which outlives the container's: if a kill is counted
//! while a container runs that then ends by SIGKILL, it was that container's. An agent that is restarted in between
//! knows only what Docker says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stanchion_sdk::cgroup::Cgroup;

/// Started containers, by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kills(Arc<Mutex<HashMap<String, Started>>>);

#[derive(Clone, Debug)]
struct Started {
    /// Cgroup of its pod.
    pod: String,
    /// Kills counted there that were not this container's.
    others: u64,
    /// Whether it was killed for lack of memory, once it has ended.
    verdict: Option<bool>,
}

impl Kills {
    /// Notes a container that is about to be started, with the number of kills in its pod's cgroup so far.
    pub fn note(&self, container: &str, pod: &str, counted: u64) {
        let started = Started { pod: pod.to_owned(), others: counted, verdict: None };
        self.lock().insert(container.to_owned(), started);
    }

    /// Returns whether a container that SIGKILL has ended was killed for lack of memory: Docker has reported it
    /// (`told`), or its pod's cgroup counts a kill that is nobody else's.
    pub fn is_one(&self, container: &str, told: bool, count: impl FnOnce(&str) -> Option<u64>) -> bool {
        let mut all = self.lock();
        let Some(started) = all.get(container) else { return told };
        if let Some(verdict) = started.verdict {
            return verdict;
        }
        let (pod, others) = (started.pod.clone(), started.others);
        let counted = count(&pod).unwrap_or(others);
        let verdict = told || counted > others;
        for (id, started) in all.iter_mut().filter(|(_, started)| started.pod == pod && started.verdict.is_none()) {
            match id == container {
                true => started.verdict = Some(verdict),
                false if verdict => started.others = started.others.max(counted),
                false => {}
            }
        }
        verdict
    }

    /// Forgets all containers but the known ones.
    pub fn retain(&self, is_known: impl Fn(&String) -> bool) {
        self.lock().retain(|id, _| is_known(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Started>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of OOM kills in a cgroup and all below it; `None` if the kernel does not count them.
pub(crate) fn count(cgroup: &str) -> Option<u64> {
    Cgroup::at(cgroup).field("memory.events", "oom_kill")
}

#[cfg(test)]
mod tests {
    use super::Kills;

    // R-TERM-8.
    #[test]
    fn a_kill_is_that_container_s_which_ends_by_it() {
        let kills = Kills::default();
        let counted = |number: u64| move |pod: &str| (pod == "pod").then_some(number);
        kills.note("a", "pod", 3);
        kills.note("b", "pod", 3);
        kills.note("c", "elsewhere", 0);
        assert!(!kills.is_one("b", false, counted(3)), "somebody killed it");
        kills.note("b", "pod", 3);
        assert!(kills.is_one("a", false, counted(4)), "Docker has not heard of it");
        assert!(!kills.is_one("b", false, counted(4)), "that was a's");
        assert!(kills.is_one("a", false, counted(4)), "as before");
        assert!(!kills.is_one("c", false, counted(4)), "nothing is counted there");
        assert!(
            kills.is_one("unknown", true, counted(4)) && !kills.is_one("unknown", false, counted(5)),
            "as Docker says"
        );
        kills.retain(|id| id == "b");
        assert!(!kills.is_one("a", false, counted(9)));
    }
}
