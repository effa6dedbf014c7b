//! Awaiting what other processes do.

use std::{
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at that nothing announces.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` answers `Ok(value)`, and gives that value; after `within`, an error with `what` and the last
/// reason that `look` gave.
///
/// # Errors
/// When the time is over.
pub fn until<T, E: Debug>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> std::result::Result<T, E>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(why) if started.elapsed() > within => {
                bail!("waited {:.1} s for {what}; last look: {why:?}", within.as_secs_f64())
            }
            Err(_) => pause(LOOK),
        }
    }
}

/// Looks for all of `during` and fails as soon as `look` does: for what must not happen.
///
/// # Errors
/// The first one of `look`.
pub fn throughout(during: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < during {
        look()?;
        pause(LOOK);
    }
    look()
}

/// Lets time pass where time is the point: between two looks, or until a random moment.
#[expect(clippy::disallowed_methods, reason = "other processes are observed from outside any async runtime")]
pub fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// Waits for a lock. Whoever panicked with it has left nothing half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
