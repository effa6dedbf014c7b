//! The agent's clocks: the one place where time is read.
//!
//! - Back-offs, delays, deadlines and retries wait for [`Instant`]s, which do not change when somebody sets the time of day. They
//!   are those of `CLOCK_MONOTONIC`, which stands still while the node is suspended, as Go's and so a kubelet's waits do.
//! - The time of day is only shown. The agent turns a time of day that a runtime reports into an age when it first sees it:
//!   a time that is still to come counts as now.
//! - A [`Stamp`] is a moment in a label or a file, for an agent that comes later.

use std::{
    fmt,
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use stanchion_untrusted::read_kernel;
use tokio::time::Instant;

/// The largest difference between the time of day that a [`Dial`] expects and the clock's own. Beyond it the dial takes the
/// clock's.
const DRIFT: Duration = Duration::from_millis(500);

/// The source of the agent's time: the node's clocks, or tokio's.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The node's clocks.
    #[default]
    System,
    /// tokio's clock, which tests can pause: it shows `origin` at `start`.
    Tokio {
        /// The time of day at `start`.
        origin: Timestamp,
        /// tokio's time at `origin`.
        start: Instant,
        /// Seconds by which somebody has set the time of day ahead since; negative if back.
        ahead: &'static AtomicI64,
    },
}

impl Clock {
    /// Returns the time of day.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock")]
            Self::System => Timestamp::now(),
            Self::Tokio { origin, start, ahead } => {
                let ahead = SignedDuration::from_secs(ahead.load(Ordering::Relaxed));
                let now = later(origin, instant().saturating_duration_since(start));
                now.checked_add(ahead).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// Returns this moment, to be written down.
    #[must_use]
    pub fn stamp(self) -> Stamp {
        let boot = match self {
            Self::System => BOOT.and_then(|id| Some(Boot { id, at: uptime()? })),
            Self::Tokio { start, .. } => {
                let at = instant().saturating_duration_since(start).as_nanos();
                Some(Boot { id: 0, at: i64::try_from(at).unwrap_or(i64::MAX) })
            }
        };
        Stamp { wall: self.now(), boot }
    }

    /// Returns the [`Instant`] of a moment that a runtime reported or somebody wrote down. It is to be called once, when the
    /// moment is first seen: somebody may set the time of day later.
    pub(crate) fn instant_of(self, told: Stamp) -> Instant {
        earlier(instant(), self.stamp().since(told))
    }
}

/// Returns the present [`Instant`], for whatever waits.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}

/// A moment as it is written down: the time of day and, where it is known, the time since the node's boot. Within one
/// boot, ages are differences of the latter, which nobody sets (`CLOCK_BOOTTIME`; a suspended node grows older too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Stamp {
    /// The time of day, to be shown.
    pub wall: Timestamp,
    boot: Option<Boot>,
}

/// A moment in the node's life since a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Boot {
    /// The kernel's id of the boot, shortened.
    id: u64,
    /// Nanoseconds since the boot; negative for a moment before it.
    at: i64,
}

impl Stamp {
    /// Returns the time from `then` to this moment; zero if `then` is later.
    pub(crate) fn since(self, then: Self) -> Duration {
        match (self.boot, then.boot) {
            // In a container of LXC the uptime begins anew while the boot is the same.
            (Some(now), Some(then)) if now.id == then.id && now.at >= then.at => {
                Duration::from_nanos(u64::try_from(now.at.saturating_sub(then.at)).unwrap_or(0))
            }
            _ => until(then.wall, self.wall),
        }
    }

    /// Returns the same moment, counted from the boot of `now`. A moment that was written down in another boot, or as a
    /// time of day alone, keeps its present age from here on, whatever becomes of the time of day.
    pub(crate) fn anchored(self, now: Self) -> Self {
        let Some(boot) = now.boot.filter(|boot| self.boot.is_none_or(|own| own.id != boot.id)) else { return self };
        let age = i64::try_from(now.since(self).as_nanos()).unwrap_or(i64::MAX);
        Self { wall: self.wall.min(now.wall), boot: Some(Boot { at: boot.at.saturating_sub(age), ..boot }) }
    }
}

impl From<Timestamp> for Stamp {
    fn from(wall: Timestamp) -> Self {
        Self { wall, boot: None }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.boot {
            Some(Boot { id, at }) => write!(f, "{} {id:016x} {at}", self.wall),
            None => self.wall.fmt(f),
        }
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> Self {
        stamp.to_string()
    }
}

/// The error for a text that is no [`Stamp`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0:?} is not a time of day, with or without a boot and the nanoseconds since it")]
pub struct NoStamp(String);

impl FromStr for Stamp {
    type Err = NoStamp;

    fn from_str(text: &str) -> Result<Self, NoStamp> {
        let parse = || {
            let mut words = text.split(' ');
            let wall = words.next()?.parse().ok()?;
            let boot = match words.next() {
                None => None,
                Some(id) => Some(Boot { id: u64::from_str_radix(id, 16).ok()?, at: words.next()?.parse().ok()? }),
            };
            words.next().is_none().then_some(Self { wall, boot })
        };
        parse().ok_or_else(|| NoStamp(text.to_owned()))
    }
}

impl TryFrom<String> for Stamp {
    type Error = NoStamp;

    fn try_from(text: String) -> Result<Self, NoStamp> {
        text.parse()
    }
}

/// Times of day of [`Instant`]s, to be shown. That of one instant is always the same, until somebody sets the time of
/// day.
#[derive(Debug)]
pub(crate) struct Dial {
    clock: Clock,
    at: Instant,
    wall: Timestamp,
}

impl Dial {
    pub fn new(clock: Clock) -> Self {
        Self { clock, at: instant(), wall: clock.now() }
    }

    /// Returns the time of day at `at`.
    pub fn shown(&mut self, at: Instant) -> Timestamp {
        let now = self.clock.now();
        let expected = later(self.wall, instant().saturating_duration_since(self.at));
        if until(expected, now).max(until(now, expected)) > DRIFT {
            (self.at, self.wall) = (instant(), now);
        }
        later(self.wall, at.saturating_duration_since(self.at))
    }
}

/// The id of this boot, shortened.
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

/// Returns `at` plus `delay`, at most the end of time.
pub(crate) fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Returns the time from `from` until `to`; zero if `to` is earlier.
pub(crate) fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// Returns `at` plus `delay`, which counts as 100 years at most.
pub(crate) fn after(at: Instant, delay: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);
    at + delay.min(LONGEST)
}

/// Returns `at` less `age`, or `at` itself if there is no such instant.
fn earlier(at: Instant, age: Duration) -> Instant {
    at.checked_sub(age).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(wall: &str, boot: Option<(u64, i64)>) -> Stamp {
        let boot = boot.map(|(id, seconds)| Boot { id, at: seconds * 1_000_000_000 });
        Stamp { wall: wall.parse().expect("a time"), boot }
    }

    #[test]
    fn an_age_is_told_by_the_boot_or_else_by_the_time_of_day_and_never_less_than_nothing() {
        let now = stamp("2026-01-01T12:00:00Z", Some((1, 1000)));
        for (then, seconds) in [
            (stamp("2026-01-01T20:00:00Z", Some((1, 990))), 10),
            (stamp("2026-01-01T11:00:00Z", Some((2, 990))), 3600),
            (stamp("2026-01-01T20:00:00Z", Some((2, 990))), 0),
            (stamp("2026-01-01T11:59:00Z", None), 60),
            (stamp("2026-01-01T12:00:01Z", None), 0),
        ] {
            assert_eq!(now.since(then), Duration::from_secs(seconds), "{then}");
            let moved = stamp("2026-01-02T12:00:00Z", Some((1, 1005)));
            let anchored = then.anchored(now);
            assert_eq!(moved.since(anchored), Duration::from_secs(seconds + 5), "{then}");
            assert_eq!(anchored.to_string().parse::<Stamp>().expect("it is one"), anchored);
        }
        assert!("yesterday".parse::<Stamp>().is_err() && "2026-01-01T12:00:00Z 7".parse::<Stamp>().is_err());
    }

    #[test]
    fn the_node_tells_its_boot() {
        let (first, second) = (Clock::System.stamp(), Clock::System.stamp());
        assert!(first.boot.is_some() && second.since(first) < Duration::from_secs(60), "{first} {second}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_shown_of_a_moment_follows_the_time_of_day() {
        let ahead: &AtomicI64 = Box::leak(Box::default());
        let origin = "2026-01-01T12:00:00Z".parse().expect("a time");
        let clock = Clock::Tokio { origin, start: instant(), ahead };
        let mut dial = Dial::new(clock);
        let due = instant() + Duration::from_secs(100);
        assert_eq!(dial.shown(due).to_string(), "2026-01-01T12:01:40Z");
        tokio::time::sleep(Duration::from_secs(10)).await;
        ahead.store(-3600, Ordering::Relaxed);
        assert_eq!(dial.shown(due).to_string(), "2026-01-01T11:01:40Z");
    }
}
