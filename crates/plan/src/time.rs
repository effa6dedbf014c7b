//! Times as labels and files hold them, and arithmetic that never overflows. Nothing here reads a clock.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Time for a label or a file: the time of day and, if known, the time since the node's boot. Within one boot, ages are
/// differences of the latter, which nobody can set (`CLOCK_BOOTTIME`, which counts suspension too).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Stamp {
    /// Time of day, for display.
    pub wall: Timestamp,
    /// Time since the boot, if known.
    pub boot: Option<Boot>,
}

/// Time since a boot of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Boot {
    /// Kernel's id of the boot, shortened.
    pub id: u64,
    /// Nanoseconds since the boot; negative before it.
    pub at: i64,
}

impl Stamp {
    /// Returns the time from `then` to this time; zero if `then` is later.
    pub fn since(self, then: Self) -> Duration {
        match (self.boot, then.boot) {
            // In an LXC container the uptime starts over while the boot id stays.
            (Some(now), Some(then)) if now.id == then.id && now.at >= then.at => {
                Duration::from_nanos(u64::try_from(now.at.saturating_sub(then.at)).unwrap_or(0))
            }
            _ => until(then.wall, self.wall),
        }
    }

    /// Returns the same time, counted from the boot of `now`. A time from another boot, or a time of day alone, keeps
    /// its present age from here on, even if somebody sets the time of day.
    pub fn anchored(self, now: Self) -> Self {
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

/// Error for a text that is not a [`Stamp`].
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

/// Returns `at` plus `delay`, at most the latest possible time.
pub fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// Returns the time from `from` until `to`; zero if `to` is earlier.
pub fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// Back-off: waits between tries that double with each failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// Returns the wait after the wait `last`; a `last` of zero means that there was none.
    #[must_use]
    pub fn after(self, last: Duration) -> Duration {
        last.saturating_mul(2).clamp(self.first, self.longest)
    }
}

/// Returns `at` plus `delay`; a delay counts as 100 years at most.
pub fn after(at: Instant, delay: Duration) -> Instant {
    const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 86_400);
    at + delay.min(MAX_DELAY)
}

/// Returns `at` less `age`, or `at` itself if there is no such instant.
pub fn earlier(at: Instant, age: Duration) -> Instant {
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
    fn waits_double_from_the_first_to_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(300) };
        let mut wait = Duration::ZERO;
        let waits = [(); 7].map(|()| {
            wait = backoff.after(wait);
            wait.as_secs()
        });
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after(Duration::MAX).as_secs(), 300);
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
}
