//! The backend that a pod runs on, and its moves while that backend is away.
//!
//! A pod stays on its backend until the configuration moves it or the backend is gone. Then another backend runs it, if
//! `failover` is configured and no process of the pod is left. Without that certainty the pod waits (I1).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use stanchion_pod::{Pod, RestartPolicy, Revision};
use stanchion_runtime::OnReturn;

use crate::{
    mutant::{self, Mutant},
    time::after,
};

/// Interval between searches for processes of a pod whose backend is lost.
const SEARCH_AGAIN: Duration = Duration::from_secs(5);

/// Backend of pods without `runtimeClassName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultBackend {
    /// The backend of this name.
    Named(String),
    /// The first healthy backend, in the order of the configuration.
    Auto,
}

/// Failover of pods from a backend that is away to another one. It moves pods with `restartPolicy: Always` and without
/// `runtimeClassName`, once none of their processes is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Time for which the backend must have been away.
    pub after: Duration,
    /// Backend of the moved pods when the first one is back.
    pub on_return: OnReturn,
}

impl Default for Failover {
    /// Waits longer than a daemon takes to be restarted or upgraded.
    fn default() -> Self {
        Self { after: Duration::from_secs(10), on_return: OnReturn::Stay }
    }
}

/// Part of the configuration that gives pods their backends.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Backends by `runtimeClassName`.
    pub runtime_classes: &'a BTreeMap<String, String>,
    /// Backend of the other pods.
    pub default_backend: &'a DefaultBackend,
}

/// A backend as last observed.
#[derive(Clone, Debug)]
pub struct ObservedBackend<'a> {
    /// Name of the backend.
    pub name: &'a str,
    /// `true` once an observation has succeeded.
    pub was_observed: bool,
    /// Error of the latest observation, if it failed.
    pub error: Option<String>,
    /// `true` if it failed because no runtime can be reached, as opposed to one that does not answer.
    pub is_absent: bool,
    /// Time of day since which observations succeed, or fail.
    pub since: Timestamp,
    /// Time since then.
    pub lasts: Duration,
    /// `true` if a sandbox or a container of the pod was observed.
    pub has_pod: bool,
    /// Failover from this backend, if there is one.
    pub failover: Option<Failover>,
}

impl ObservedBackend<'_> {
    /// Returns whether the latest observation succeeded.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.was_observed && self.error.is_none()
    }
}

/// A pod's backend, and the pod's next step from one backend to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The backend that the pod runs on: its own, or the fallback; empty if there is none.
    pub backend: String,
    /// The next step. After it, `place` decides again.
    pub step: Option<Step>,
    /// Time to decide again even if nothing happens until then.
    pub wake_at: Option<Instant>,
}

/// One step of a pod from backend to backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Search for processes of the pod, whose backend has been away for long enough; see [`Placement::searched`].
    Search {
        /// Name of that backend.
        backend: String,
    },
    /// Move to another backend, because no process of the pod is left on the pod's own.
    FailOver {
        /// The pod's own backend.
        from: String,
        /// The first backend that works.
        to: String,
    },
    /// Go back to the pod's own backend, which has returned.
    Return {
        /// The pod's own backend.
        to: String,
    },
    /// Leave the fallback, because no process of the pod is left there either.
    LeaveFallback,
}

/// The backends of a pod, as its worker remembers them between two decisions.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// Backends that this or an earlier agent put the pod on. Until an observation of them succeeds, the pod may run
    /// there.
    used: BTreeSet<String>,
    /// The chosen backend, if the default is [`DefaultBackend::Auto`]. The pod keeps it as long as this agent runs.
    chosen: Option<String>,
    /// The fallback, while the pod runs on another backend than its own.
    fallback: Option<Fallback>,
    /// Backends that are away: those where the pod may still run, and those that are given up.
    lost: BTreeMap<String, Lost>,
}

/// A revision that runs on another backend than its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fallback {
    revision: Revision,
    instead_of: String,
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Lost {
    /// No process of the pod is left there.
    GivenUp,
    /// Processes of the pod may be left there.
    MaybeAlive { why: String, search_at: Instant },
}

/// Decides where a pod runs. `pod` is `None` if it is to be removed; `backends` are all backends, in the order of the
/// configuration.
#[must_use]
pub fn place(
    pod: Option<&Pod>,
    rules: Rules<'_>,
    backends: &[ObservedBackend<'_>],
    placement: &Placement,
    now: Instant,
) -> Place {
    let own = placement.own(pod, rules, backends);
    let backend = placement.backend(pod, &own);
    let (step, wake_at) = match next(pod, &own, &backend, backends, placement, now) {
        Ok(step) => (Some(step), None),
        Err(wake_at) => (None, wake_at),
    };
    Place { backend, step, wake_at }
}

/// Returns the next step, or the time to decide again.
fn next(
    pod: Option<&Pod>,
    own: &str,
    backend: &str,
    backends: &[ObservedBackend<'_>],
    placement: &Placement,
    now: Instant,
) -> Result<Step, Option<Instant>> {
    let fallback = placement.fallback.as_ref();
    let own_backend = backends.iter().find(|observed| observed.name == own);
    let is_back = own_backend.is_some_and(|observed| {
        observed.is_current() && observed.failover.is_some_and(|failover| failover.on_return == OnReturn::Migrate)
    });
    if is_back && fallback.is_some_and(|fallback| fallback.instead_of == own) {
        return Ok(Step::Return { to: own.to_owned() });
    }
    let mut wake_at: Option<Instant> = None;
    for observed in backends.iter().filter(|observed| !observed.is_current() && placement.may_be_on(observed, own)) {
        match placement.search_at(observed, now) {
            Some(at) if at <= now => return Ok(Step::Search { backend: observed.name.to_owned() }),
            at => wake_at = [wake_at, at].into_iter().flatten().min(),
        }
    }
    if fallback.is_some_and(|fallback| placement.is_given_up(&fallback.backend)) {
        return Ok(Step::LeaveFallback);
    }
    let flees = |pod: &Pod| pod.runtime_class.is_none() && pod.restart_policy == RestartPolicy::Always;
    // A pod with `runtimeClassName` waits for its backend. So does one without `restartPolicy: Always`: it may have
    // completed, and only its backend knows.
    if placement.is_given_up(own)
        && backend == own
        && pod.is_some_and(flees)
        && let Some(to) = backends.iter().find(|observed| observed.name != own && observed.is_current())
    {
        return Ok(Step::FailOver { from: own.to_owned(), to: to.name.to_owned() });
    }
    Err(wake_at)
}

impl Placement {
    /// Makes the placement of a pod from the records of earlier agents: each names a backend, the revision on it, and
    /// the pod's own backend if that one was a fallback.
    #[must_use]
    pub fn recorded<'a>(records: impl Iterator<Item = (&'a str, &'a str, Option<&'a str>)>) -> Self {
        let mut placement = Self::default();
        for (backend, revision, instead_of) in records.filter(|_| !mutant::is_on(Mutant::ForgetsRecords)) {
            placement.used.insert(backend.to_owned());
            if let Some(instead_of) = instead_of {
                let (revision, instead_of) = (Revision::new(revision), instead_of.to_owned());
                placement.fallback = Some(Fallback { revision, instead_of, backend: backend.to_owned() });
            }
        }
        placement
    }

    /// Takes over which backends are back, and keeps the backend that `auto` chose.
    pub fn update(&mut self, pod: Option<&Pod>, rules: Rules<'_>, backends: &[ObservedBackend<'_>]) {
        self.lost.retain(|name, _| !is_current(name, backends));
        if class(pod).is_none() && *rules.default_backend == DefaultBackend::Auto && self.chosen.is_none() {
            self.chosen = self.choice(backends);
        }
    }

    /// Records that the pod is about to be put on a backend.
    pub fn put_on(&mut self, backend: &str) {
        self.used.insert(backend.to_owned());
    }

    /// Forgets a backend that confirms that nothing of the pod is left there. The pod need not wait for it if it hangs
    /// later.
    pub fn forget_if_gone(&mut self, observed: &ObservedBackend<'_>) {
        if observed.is_current() && !observed.has_pod {
            self.used.remove(observed.name);
        }
    }

    /// Records the result of [`Step::Search`]: `alive` says why processes may be left; `None` means that none is.
    pub fn searched(&mut self, backend: &str, alive: Option<String>, now: Instant) {
        let lost = match alive {
            None => Lost::GivenUp,
            Some(why) => Lost::MaybeAlive { why, search_at: after(now, SEARCH_AGAIN) },
        };
        self.lost.insert(backend.to_owned(), lost);
    }

    /// Records that a revision runs on another backend than its own from now on.
    pub fn fall_back(&mut self, revision: &Revision, from: &str, to: &str) {
        let (revision, instead_of, backend) = (revision.clone(), from.to_owned(), to.to_owned());
        self.fallback = Some(Fallback { revision, instead_of, backend });
    }

    /// Records that the pod runs on its own backend again.
    pub fn leave_fallback(&mut self) {
        self.fallback = None;
    }

    /// Returns the pod's own backend if this revision runs on `backend` as a fallback.
    #[must_use]
    pub fn instead_of(&self, revision: &Revision, backend: &str) -> Option<&str> {
        let fallback = self.fallback.as_ref()?;
        (fallback.revision == *revision && fallback.backend == backend).then_some(&*fallback.instead_of)
    }

    /// Returns whether no process of the pod is left on a backend that is away.
    #[must_use]
    pub fn is_given_up(&self, backend: &str) -> bool {
        self.lost.get(backend) == Some(&Lost::GivenUp)
    }

    /// Returns whether the agent observes all backends that the pod's next step depends on: `backend`, and those where
    /// the pod may still run.
    #[must_use]
    pub fn is_visible(&self, backend: &str, backends: &[ObservedBackend<'_>]) -> bool {
        if mutant::is_on(Mutant::WaitsForAll) {
            return backends.iter().all(ObservedBackend::is_current);
        }
        is_current(backend, backends) && self.unobserved(backends).is_none()
    }

    /// Returns whether a pod without sandboxes and containers is gone: every backend where it may be confirms that, or
    /// has been given up. `pod` is its last known manifest.
    #[must_use]
    pub fn is_gone(&self, pod: Option<&Pod>, rules: Rules<'_>, backends: &[ObservedBackend<'_>]) -> bool {
        let own = self.own(pod, rules, backends);
        let mut places = backends.iter().filter(|observed| self.may_be_on(observed, &own)).peekable();
        // Without such a backend the pod was never put on one, or nothing is known yet.
        let is_anywhere = places.peek().is_some() || self.is_given_up(&own);
        // A `runtimeClassName` that is not configured has no backend.
        let is_nowhere = own.is_empty() && class(pod).is_some();
        (is_anywhere || is_nowhere) && places.all(ObservedBackend::is_current)
    }

    /// Returns whether the pod was put on backends, and the agent observes all of them now.
    #[must_use]
    pub fn is_all_observed(&self, backends: &[ObservedBackend<'_>]) -> bool {
        let mut used = self.used.iter().filter(|name| !self.is_given_up(name)).peekable();
        used.peek().is_some() && used.all(|name| is_current(name, backends))
    }

    /// Returns why nothing can be done for the pod on `backend` now: a backend that matters cannot be observed.
    #[must_use]
    pub fn obstacle(&self, backend: &str, backends: &[ObservedBackend<'_>]) -> Option<String> {
        let Some(observed) = backends.iter().find(|observed| observed.name == backend) else {
            return Some("no configured backend can be reached".to_owned());
        };
        let unobserved = self.unobserved(backends).map(|unobserved| (unobserved, ", where the pod may still run"));
        let (away, role) = unobserved.unwrap_or((observed, ""));
        let doubt = match self.lost.get(away.name) {
            Some(Lost::MaybeAlive { why, .. }) => format!("; the pod is not moved to another backend: {why}"),
            _ => String::new(),
        };
        let name = away.name;
        match &away.error {
            Some(error) => Some(format!("backend {name}{role}: {error} (since {:.0}){doubt}", away.since)),
            None if !away.was_observed => Some(format!("backend {name}{role} has not answered yet")),
            None => None,
        }
    }

    /// Returns the backend that the configuration gives a pod; empty if there is none.
    #[must_use]
    pub fn own(&self, pod: Option<&Pod>, rules: Rules<'_>, backends: &[ObservedBackend<'_>]) -> String {
        if let Some(class) = class(pod) {
            return rules.runtime_classes.get(class).cloned().unwrap_or_default();
        }
        match rules.default_backend {
            DefaultBackend::Named(name) => name.clone(),
            DefaultBackend::Auto => self.chosen.clone().or_else(|| self.choice(backends)).unwrap_or_default(),
        }
    }

    /// Returns the backend that a pod runs on, if `own` is what the configuration gives it.
    #[must_use]
    pub fn backend(&self, pod: Option<&Pod>, own: &str) -> String {
        let fallback = self.fallback.as_ref().filter(|fallback| fallback.instead_of == own);
        match fallback.filter(|fallback| pod.is_some_and(|pod| pod.revision == fallback.revision)) {
            Some(fallback) => fallback.backend.clone(),
            None => own.to_owned(),
        }
    }

    /// Chooses a backend: the one that a fallback stands in for, the one that has the pod, the one that had it, or the
    /// first healthy one.
    fn choice(&self, backends: &[ObservedBackend<'_>]) -> Option<String> {
        let is_given_up = |observed: &ObservedBackend<'_>| !observed.is_current() && self.is_given_up(observed.name);
        let occupied = || backends.iter().find(|observed| observed.has_pod && !is_given_up(observed));
        let used = || backends.iter().find(|observed| self.used.contains(observed.name));
        let healthy = || backends.iter().find(|observed| observed.is_current());
        let instead_of = self.fallback.as_ref().map(|fallback| &*fallback.instead_of);
        let own = backends.iter().find(|observed| Some(observed.name) == instead_of);
        own.or_else(occupied).or_else(used).or_else(healthy).map(|observed| observed.name.to_owned())
    }

    /// Returns a backend where the pod may run and that no observation of this agent has reached (I1).
    fn unobserved<'a>(&self, backends: &'a [ObservedBackend<'a>]) -> Option<&'a ObservedBackend<'a>> {
        let may_run =
            |observed: &ObservedBackend<'_>| self.used.contains(observed.name) && !self.is_given_up(observed.name);
        backends.iter().find(|observed| !observed.was_observed && may_run(observed))
    }

    /// Returns whether the pod may be on a backend: it belongs there, was put there, or was observed there, and that
    /// backend has not been given up.
    fn may_be_on(&self, observed: &ObservedBackend<'_>, own: &str) -> bool {
        let was_there = self.used.contains(observed.name) || observed.has_pod;
        (observed.name == own || was_there) && !self.is_given_up(observed.name)
    }

    /// Returns when to search for processes of the pod on a backend that is away; `None` if it must not be given up.
    fn search_at(&self, observed: &ObservedBackend<'_>, now: Instant) -> Option<Instant> {
        let failover = observed.failover?;
        // A backend that hangs may still carry out an earlier call at any time.
        if !observed.is_absent {
            return None;
        }
        let absent_long_enough = after(now, failover.after.saturating_sub(observed.lasts));
        match self.lost.get(observed.name) {
            Some(Lost::MaybeAlive { search_at, .. }) => Some(absent_long_enough.max(*search_at)),
            _ => Some(absent_long_enough),
        }
    }
}

fn class(pod: Option<&Pod>) -> Option<&str> {
    pod.and_then(|pod| pod.runtime_class.as_deref())
}

fn is_current(backend: &str, backends: &[ObservedBackend<'_>]) -> bool {
    backends.iter().any(|observed| observed.name == backend && observed.is_current())
}

#[cfg(test)]
mod tests;
