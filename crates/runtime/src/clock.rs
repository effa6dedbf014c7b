//! The clocks of backends and of what they share. Every other reading of the time is a lint error.
//!
//! The wall-clock time is for display, logs and messages. No wait depends on it, because an administrator can set it.

use jiff::Timestamp;
#[cfg(feature = "instant")]
use tokio::time::Instant;

/// Returns the wall-clock time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Returns the monotonic time, for waits: setting the time of day changes no back-off, deadline or lifetime.
#[cfg(feature = "instant")]
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
