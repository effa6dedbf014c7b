//! The time of day, replaceable in tests.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Where the agent reads the time of day.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// The node's clock.
    #[default]
    System,
    /// Runs with tokio's clock, which tests can pause: `origin` at `start`.
    Tokio {
        /// The time of day at `start`.
        origin: Timestamp,
        /// tokio's time then.
        start: Instant,
    },
}

impl Clock {
    /// The time of day.
    #[must_use]
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Tokio { origin, start } => later(origin, start.elapsed()),
        }
    }
}

/// `at` plus `delay`, at most the end of time.
pub(crate) fn later(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(delay).unwrap_or(Timestamp::MAX)
}

/// How long from `from` until `to`; zero if that has passed.
pub(crate) fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}
