//! The fault script: what shall go wrong, and when.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{Call, FakeRuntime, Method, lock};
use crate::{Error, ErrorKind};

/// What goes wrong in a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails without having done anything.
    Fail(Error),
    /// It does its work, and then fails: the answer is lost, as when a backend crashes or a deadline passes.
    LoseAnswer(Error),
    /// It takes that much longer, then does its work.
    Slow(Duration),
    /// It does nothing until released.
    Hang(Hold),
    /// It does its work, and does not answer until released.
    HangAfter(Hold),
}

impl Fault {
    /// [`Fail`](Fault::Fail) with an error of this kind.
    #[must_use]
    pub fn fail(kind: ErrorKind) -> Self {
        Self::Fail(scripted(kind))
    }

    /// [`LoseAnswer`](Fault::LoseAnswer) with an error of this kind.
    #[must_use]
    pub fn lose_answer(kind: ErrorKind) -> Self {
        Self::LoseAnswer(scripted(kind))
    }
}

fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, format!("the fault script of this test says {kind:?}"))
}

/// Which calls of a method a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The n-th call from now on, counted from 1, once.
    Nth(u32),
    /// Every call from now on.
    Always,
}

/// Holds a hanging call, and says when it has come.
#[derive(Clone, Debug)]
pub struct Hold {
    reached: Arc<watch::Sender<bool>>,
    released: Arc<watch::Sender<bool>>,
}

impl Hold {
    /// Nothing reached it, nothing released.
    #[must_use]
    pub fn new() -> Self {
        Self { reached: Arc::new(watch::Sender::new(false)), released: Arc::new(watch::Sender::new(false)) }
    }

    /// Waits until a call hangs in it.
    ///
    /// Cancel-safe.
    pub async fn reached(&self) {
        // The sender is ours, so the channel cannot close.
        self.reached.subscribe().wait_for(|reached| *reached).await.ok();
    }

    /// Whether a call hangs, or has hung, in it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        *self.reached.borrow()
    }

    /// How many calls hang in it now; one that was given up does not.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.released.receiver_count()
    }

    /// Lets the call go on, and every later one that comes here.
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

/// The rules still to come, and the calls that were made.
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
    /// Records a call and answers the fault that strikes it. Of several, the one that was scripted first.
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

    /// Makes a call of `method` hang before it has done anything, until the answer is released.
    #[must_use]
    pub fn hang(&self, method: Method, when: When) -> Hold {
        let hold = Hold::new();
        self.fault(method, when, Fault::Hang(hold.clone()));
        hold
    }

    /// Makes a call of `method` do its work and hang, until the answer is released.
    #[must_use]
    pub fn hang_after(&self, method: Method, when: When) -> Hold {
        let hold = Hold::new();
        self.fault(method, when, Fault::HangAfter(hold.clone()));
        hold
    }

    /// Every call takes `delay` from now on.
    pub fn slow_down(&self, delay: Duration) {
        for method in Method::ALL {
            self.fault(method, When::Always, Fault::Slow(delay));
        }
    }

    /// Takes the rest of the script of `method` back.
    pub fn heal(&self, method: Method) {
        lock(&self.shared.script).rules.retain(|rule| rule.method != method);
    }

    /// Takes the whole script back. Calls that hang already stay until released.
    pub fn heal_all(&self) {
        lock(&self.shared.script).rules.clear();
    }

    /// Every call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.shared.script).calls.iter().map(|(_, call)| call.clone()).collect()
    }

    /// Every call so far with its time, in order.
    #[must_use]
    pub fn timed_calls(&self) -> Vec<(Instant, Call)> {
        lock(&self.shared.script).calls.clone()
    }

    /// Every call so far that was not only a look, in order.
    #[must_use]
    pub fn actions(&self) -> Vec<Call> {
        self.calls().into_iter().filter(|call| !call.method().only_looks()).collect()
    }

    /// How often `method` was called so far.
    #[must_use]
    pub fn count(&self, method: Method) -> usize {
        lock(&self.shared.script).calls.iter().filter(|(_, call)| call.method() == method).count()
    }

    /// Forgets the calls made so far.
    pub fn forget_calls(&self) {
        lock(&self.shared.script).calls.clear();
    }
}
