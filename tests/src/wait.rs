//! Waits for the effects of other processes.

use std::{
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Interval for polling conditions that nothing announces.
const LOOK: Duration = Duration::from_millis(20);

/// Calls `look` until it returns `Ok(value)`, and returns that value. After `within`, returns an error with `what` and
/// the last error of `look`.
///
/// # Errors
/// When `look` does not succeed `within` that time.
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

/// Calls `look` again and again for all of `during`, and fails as soon as it fails: for things that must not happen.
///
/// # Errors
/// The first error of `look`.
pub fn throughout(during: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < during {
        look()?;
        pause(LOOK);
    }
    look()
}

/// Sleeps: between two looks, or until a random moment.
#[expect(clippy::disallowed_methods, reason = "other processes are observed from outside any async runtime")]
pub fn pause(duration: Duration) {
    thread::sleep(duration);
}

/// Takes a lock; one that a panic has poisoned too, because the data is never left half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
