//! A runtime in memory.
//!
//! # Layout
//! - `state`: what exists, and the one place that changes it.
//! - `methods`: the trait, each method recorded and put through the fault script.
//! - `steer`: what tests do to it from outside: exits, losses, outages, events.
//! - `call`, `fault`: what was called; what shall go wrong.
//! - `witness`: invariants, checked on every change.
//! - `images`, `events`: registry and image store; subscribers.
//! - `program`, `shell`: what a fake container does, and the few shell commands it understands; `kernel`: what it sees of
//!   the kernel.

mod call;
mod events;
mod exec;
mod fault;
mod images;
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

use self::{fault::Script, state::State, witness::Witness};

pub(in crate::testing) use self::shell::GROW;
pub use self::{
    call::{Call, Method},
    fault::{Fault, Hold, When},
    program::{Program, TermAction},
    witness::Violation,
};

/// A [`Runtime`](crate::Runtime) in memory. Clones are the same runtime.
///
/// It keeps every rule of the trait, so that the agent can be tested against it, and breaks what a test's fault script
/// says ([`fault`](FakeRuntime::fault)). All waiting is `tokio::time`, so that paused-clock tests are exact. It watches
/// the agent meanwhile: see [`violations`](FakeRuntime::violations).
///
/// A container without a command runs until it is told to stop, and then exits with 143 at once; [`Program`] changes
/// that by container name, and a command that is a shell script of the few words in the module `shell` is obeyed.
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
    name: String,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    state: Mutex<State>,
    script: Mutex<Script>,
    witness: Arc<Witness>,
    /// Counts changes of `state`, for those who wait for one.
    changes: watch::Sender<u64>,
}

impl FakeRuntime {
    /// An empty runtime named `fake`, on the node's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::build("fake", Arc::default(), crate::clock::now)
    }

    /// An empty runtime whose timestamps come from `clock`.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::build("fake", Arc::default(), clock)
    }

    /// A second runtime on the same node, named `name`: invariants are watched across both, on the clock given.
    #[must_use]
    pub fn beside(&self, name: &str, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self::build(name, Arc::clone(&self.shared.witness), clock)
    }

    /// What the agent did against its promises so far, on this runtime and those made with
    /// [`beside`](FakeRuntime::beside). A test ends with an assertion that this is empty.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.witness.violations()
    }

    fn build(name: &str, witness: Arc<Witness>, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let shared = Shared {
            name: name.to_owned(),
            clock: Box::new(clock),
            state: Mutex::default(),
            script: Mutex::default(),
            witness,
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
    fn look<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&lock(&self.state))
    }

    /// Changes the state, lets the witness see the outcome, and wakes whoever waits for a change.
    fn change<T>(&self, change: impl FnOnce(&mut State, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = lock(&self.state);
        let answer = change(&mut state, now);
        self.witness.look(&self.name, &state);
        drop(state);
        self.changes.send_modify(|count| *count += 1);
        answer
    }
}

/// Locks; a test that panicked with the lock held has failed already, the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
