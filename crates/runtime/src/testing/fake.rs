//! A runtime in memory.
//!
//! # Layout
//! - `state`: sandboxes, containers and images, and the one place that changes them.
//! - `methods`: the trait; each method is recorded and goes through the fault script.
//! - `steer`: actions of tests on the fake: exits, losses, outages, events.
//! - `call`, `fault`: recorded calls; scripted faults.
//! - `witness`: invariants, checked on every change. `journal`: calls and changes of all fakes of a node.
//! - `images`, `events`: registry and image store; subscribers.
//! - `program`, `shell`: behaviour of fake containers, and the few shell commands they understand; `kernel`: the files
//!   of the kernel that they see.

mod call;
mod events;
mod exec;
mod fault;
mod images;
mod journal;
mod kernel;
mod methods;
mod program;
mod shell;
mod state;
mod steer;
mod witness;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use self::{fault::Script, journal::Journal, state::State, witness::Witness};

pub(in crate::testing) use self::shell::GROW;
pub use self::{
    call::{Call, Method},
    fault::{Fault, Hold, When},
    journal::{Entry, Fact},
    program::{Program, TermAction},
    witness::Violation,
};

/// A [`Runtime`](crate::Runtime) in memory. Clones are the same runtime.
///
/// It keeps every rule of the trait, so that tests can run the agent against it, and breaks rules as a test's fault
/// script says ([`fault`](FakeRuntime::fault)). It waits only with `tokio::time`, so that paused-clock tests are exact.
/// Meanwhile it watches the agent: see [`violations`](FakeRuntime::violations).
///
/// A container without a command runs until its stop signal, and then exits with 143 at once; [`Program`] changes that
/// by container name. A command is executed if it is a shell script of the few commands in the module `shell`.
///
/// # Examples
/// ```
/// # use stanchion_runtime::{testing::{FakeRuntime, Fault, Method, When}, ErrorKind};
/// let fake = FakeRuntime::new();
/// fake.publish("docker.io/library/redis:latest", 40_000_000);
/// fake.fault(Method::CreateContainer, When::Nth(2), Fault::fail(ErrorKind::Timeout));
/// ```
#[derive(Clone)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    state: Mutex<State>,
    script: Mutex<Script>,
    witness: Arc<Witness>,
    journal: Arc<Journal>,
    /// Counter of changes to `state`; tasks wait on it.
    changes: watch::Sender<u64>,
}

impl FakeRuntime {
    /// Returns an empty runtime named `fake`, on the node's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::build("fake", Arc::default(), Arc::default(), crate::clock::now)
    }

    /// Returns an empty runtime with timestamps from `clock`.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::build("fake", Arc::default(), Arc::default(), clock)
    }

    /// Returns a second runtime on the same node, named `name`, with its own clock; violations are detected across
    /// both.
    #[must_use]
    pub fn beside(&self, name: &str, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let Shared { witness, journal, .. } = &*self.shared;
        Self::build(name, Arc::clone(witness), Arc::clone(journal), clock)
    }

    /// Returns the broken promises of the agent so far, on this runtime and those made with
    /// [`beside`](FakeRuntime::beside). A test ends with an assertion that this is empty.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.witness.violations()
    }

    fn build(
        name: &str,
        witness: Arc<Witness>,
        journal: Arc<Journal>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            name: name.into(),
            clock: Box::new(clock),
            state: Mutex::default(),
            script: Mutex::default(),
            witness,
            journal,
            changes: watch::Sender::new(0),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakeRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeRuntime").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Reads the state.
    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&lock(&self.state))
    }

    /// Changes the state, lets the witness inspect it, and wakes the tasks that wait for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = lock(&self.state);
        let answer = change(&mut state, now);
        self.witness.inspect(&self.name, &state);
        self.journal.record(&self.name, &state);
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        answer
    }
}

/// Locks, even after a panic: the test that panicked with the lock held has failed already, and the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
