//! The command line's clocks: ages are shown, and calls are timed.

use std::time::Instant;

use jiff::Timestamp;

/// Returns the time of day.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Returns this moment.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
