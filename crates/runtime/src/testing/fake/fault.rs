//! The fault script: scripted faults and the calls that they strike.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Call, FakeRuntime, Method, lock};
use crate::{Error, ErrorKind};

/// Fault of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The call fails without having done anything.
    Fail(Error),
    /// The call does its work, and then fails: the answer is lost, as when a backend crashes or a deadline passes.
    LoseAnswer(Error),
    /// The call waits that long, then does its work.
    Slow(Duration),
    /// The call does nothing until released.
    Hang(Hold),
    /// The call does its work, and does not answer until released.
    HangAfter(Hold),
}

impl Fault {
    /// Kinds of errors that the agent treats differently.
    pub const KINDS: [ErrorKind; 6] = [
        ErrorKind::Other,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::Timeout,
        ErrorKind::Crashed,
        ErrorKind::Unavailable,
    ];

    /// Returns [`Fail`](Fault::Fail) with an error of this kind.
    #[must_use]
    pub fn fail(kind: ErrorKind) -> Self {
        Self::Fail(scripted(kind))
    }

    /// Returns [`LoseAnswer`](Fault::LoseAnswer) with an error of this kind.
    #[must_use]
    pub fn lose_answer(kind: ErrorKind) -> Self {
        Self::LoseAnswer(scripted(kind))
    }
}

fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, format!("the fault script of this test says {kind:?}"))
}

/// Calls of a method that a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The n-th call from now on, counted from 1, once.
    Nth(u32),
    /// Every call from now on.
    Always,
}

/// Hold on hanging calls, which tells when a call has reached it.
#[derive(Clone, Debug)]
pub struct Hold {
    reached: Arc<watch::Sender<bool>>,
    released: Arc<watch::Sender<bool>>,
}

impl Hold {
    /// Returns a hold that no call has reached and that is not released.
    #[must_use]
    pub fn new() -> Self {
        Self { reached: Arc::new(watch::Sender::new(false)), released: Arc::new(watch::Sender::new(false)) }
    }

    /// Waits until a call hangs in it.
    ///
    /// Cancel-safe.
    pub async fn reached(&self) {
        // This value owns the sender, so the channel cannot close.
        self.reached.subscribe().wait_for(|reached| *reached).await.ok();
    }

    /// Returns whether a call hangs, or has hung, in it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self.reached.borrow()
    }

    /// Returns the number of calls that hang in it now, without those given up.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.released.receiver_count()
    }

    /// Releases the hanging calls, and every later one.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub(super) async fn pass(&self) {
        self.reached.send_replace(true);
        self.released.subscribe().wait_for(|released| *released).await.ok();
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

/// Pending faults, and the recorded calls.
#[derive(Default)]
pub(super) struct Script {
    rules: Vec<Rule>,
    calls: Vec<(Instant, Call)>,
}

struct Rule {
    method: Method,
    when: When,
    fault: Fault,
}

impl Script {
    /// Records a call and returns the fault that strikes it; of several, the first in the script.
    pub(super) fn strike(&mut self, call: Call) -> Option<Fault> {
        let method = call.method();
        self.calls.push((Instant::now(), call));
        let mut struck = None;
        self.rules.retain_mut(|rule| {
            if rule.method != method {
                return true;
            }
            match &mut rule.when {
                When::Always => {
                    struck.get_or_insert_with(|| rule.fault.clone());
                    true
                }
                When::Nth(left) if *left > 1 => {
                    *left -= 1;
                    true
                }
                When::Nth(_) => {
                    struck.get_or_insert_with(|| rule.fault.clone());
                    false
                }
            }
        });
        struck
    }
}

impl FakeRuntime {
    /// Adds `fault` to the script: it strikes calls of `method` as `when` says.
    pub fn fault(&self, method: Method, when: When, fault: Fault) {
        lock(&self.shared.script).rules.push(Rule { method, when, fault });
    }

    /// Makes a call of `method` hang before its work, until the returned hold is released.
    #[must_use]
    pub fn hang(&self, method: Method, when: When) -> Hold {
        let hold = Hold::new();
        self.fault(method, when, Fault::Hang(hold.clone()));
        hold
    }

    /// Makes a call of `method` hang after its work, until the returned hold is released.
    #[must_use]
    pub fn hang_after(&self, method: Method, when: When) -> Hold {
        let hold = Hold::new();
        self.fault(method, when, Fault::HangAfter(hold.clone()));
        hold
    }

    /// Delays every call by `delay` from now on.
    pub fn slow_down(&self, delay: Duration) {
        for method in Method::ALL {
            self.fault(method, When::Always, Fault::Slow(delay));
        }
    }

    /// Removes the faults of `method` from the script.
    pub fn heal(&self, method: Method) {
        lock(&self.shared.script).rules.retain(|rule| rule.method != method);
    }

    /// Returns whether the script has faults that are still to strike.
    #[must_use]
    pub fn has_faults(&self) -> bool {
        !lock(&self.shared.script).rules.is_empty()
    }

    /// Removes all faults from the script. Calls that hang already stay until released.
    pub fn heal_all(&self) {
        lock(&self.shared.script).rules.clear();
    }

    /// Returns every call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.script).calls.iter().map(|(_, call)| call.clone()).collect()
    }

    /// Returns every call so far with its time, in order.
    #[must_use]
    pub fn timed_calls(&self) -> Vec<(Instant, Call)> {
        lock(&self.shared.script).calls.clone()
    }

    /// Returns every call so far that may change something, in order.
    #[must_use]
    pub fn actions(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| !call.method().only_reads()).collect()
    }

    /// Returns the number of calls of `method` so far.
    #[must_use]
    pub fn count(&self, method: Method) -> usize {
        lock(&self.shared.script).calls.iter().filter(|(_, call)| call.method() == method).count()
    }

    /// Forgets the calls made so far.
    pub fn forget_calls(&self) {
        lock(&self.shared.script).calls.clear();
    }
}
