//! The agent's clocks. Nothing else in the agent reads the time.
//!
//! - Back-offs, delays, deadlines and retries wait for [`Instant`]s of `CLOCK_MONOTONIC`. Setting the time of day does
//!   not change them. Like Go's, and so a kubelet's, they stand still while the node is suspended.
//! - The time of day is for display. When a runtime reports a time of day, the agent converts it once to an age; a
//!   future time counts as now.
//! - A [`Stamp`] is a time in a label or a file, for a later agent.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use stanchion_plan::time::{Boot, Stamp, earlier, later, until};
use stanchion_runtime::clock;
use stanchion_untrusted::read_kernel;
use tokio::time;

/// Largest difference between the time of day that a [`DisplayClock`] expects and the clock's. Beyond it, the clock's
/// counts.
const DRIFT: Duration = Duration::from_millis(500);

/// Source of the agent's time: the node's clocks, or tokio's.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The node's clocks.
    #[default]
    System,
    /// tokio's clock, which tests can pause. It shows `origin` at `start`.
    Tokio {
        /// Time of day at `start`.
        origin: Timestamp,
        /// tokio's time at `origin`.
        start: time::Instant,
        /// Seconds by which the time of day has been set ahead since; negative if back.
        ahead: &'static AtomicI64,
    },
}

impl Clock {
    /// Returns the time of day.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => clock::now(),
            Self::Tokio { origin, start, ahead } => {
                let ahead = SignedDuration::from_secs(ahead.load(Ordering::Relaxed));
                let now = later(origin, instant().saturating_duration_since(start.into_std()));
                now.checked_add(ahead).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Returns the current time, for a label or a file.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        let boot = match self {
            Self::System => BOOT.and_then(|id| Some(Boot { id, at: uptime()? })),
            Self::Tokio { start, .. } => {
                let at = instant().saturating_duration_since(start.into_std()).as_nanos();
                Some(Boot { id: 0, at: i64::try_from(at).unwrap_or(i64::MAX) })
            }
        };
        Stamp { wall: self.now(), boot }
    }

    /// Returns the [`Instant`] of a reported or recorded time. Call it once, when the time first appears: somebody may
    /// set the time of day later.
    pub(crate) fn instant_of(self, reported: Stamp) -> Instant {
        earlier(instant(), self.stamp().since(reported))
    }
}

/// Returns the current [`Instant`], for everything that waits.
#[must_use]
pub fn instant() -> Instant {
    clock::instant().into_std()
}

/// Returns the time since `then`; zero if `then` is later. `Instant::elapsed` would read the system's clock.
pub(crate) fn elapsed(then: Instant) -> Duration {
    instant().saturating_duration_since(then)
}

/// Waits until `at`.
///
/// *Cancel-safe:* it holds nothing.
pub(crate) fn sleep_until(at: Instant) -> time::Sleep {
    time::sleep_until(at.into())
}

/// Waits for `future`, at most until `deadline`.
pub(crate) fn timeout_at<F: Future>(deadline: Instant, future: F) -> time::Timeout<F> {
    time::timeout_at(deadline.into(), future)
}

/// Converter from [`Instant`]s to times of day, for display. An instant keeps its time of day until somebody sets the
/// clock.
#[derive(Debug)]
pub(crate) struct DisplayClock {
    clock: Clock,
    at: Instant,
    wall: Timestamp,
}

impl DisplayClock {
    pub fn new(clock: Clock) -> Self {
        Self { clock, at: instant(), wall: clock.now() }
    }

    /// Returns the time of day of `at`.
    pub fn time_of_day(&mut self, at: Instant) -> Timestamp {
        let now = self.clock.now();
        let expected = later(self.wall, instant().saturating_duration_since(self.at));
        if until(expected, now).max(until(now, expected)) > DRIFT {
            (self.at, self.wall) = (instant(), now);
        }
        later(self.wall, at.saturating_duration_since(self.at))
    }
}

/// Kernel's id of this boot, shortened.
static BOOT: LazyLock<Option<u64>> = LazyLock::new(|| {
    let id = read_kernel("/proc/sys/kernel/random/boot_id").ok()?.replace('-', "");
    u64::from_str_radix(id.get(..16)?, 16).ok()
});

/// Returns the nanoseconds since boot, to a hundredth of a second (proc_uptime(5), `CLOCK_BOOTTIME`).
fn uptime() -> Option<i64> {
    let text = read_kernel("/proc/uptime").ok()?;
    let (seconds, hundredths) = text.split(' ').next()?.split_once('.')?;
    let (seconds, hundredths) = (seconds.parse::<i64>().ok()?, hundredths.parse::<i64>().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(hundredths.checked_mul(10_000_000)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_tells_its_boot() {
        let (first, second) = (Clock::System.stamp(), Clock::System.stamp());
        assert!(first.boot.is_some() && second.since(first) < Duration::from_secs(60), "{first} {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_shown_of_a_moment_follows_the_time_of_day() {
        let ahead: &AtomicI64 = Box::leak(Box::default());
        let origin = "2026-01-01T12:00:00Z".parse().expect("a time");
        let clock = Clock::Tokio { origin, start: instant().into(), ahead };
        let mut display_clock = DisplayClock::new(clock);
        let due = instant() + Duration::from_secs(100);
        assert_eq!(display_clock.time_of_day(due).to_string(), "2026-01-01T12:01:40Z");
        time::sleep(Duration::from_secs(10)).await;
        ahead.store(-3600, Ordering::Relaxed);
        assert_eq!(display_clock.time_of_day(due).to_string(), "2026-01-01T11:01:40Z");
    }
}
