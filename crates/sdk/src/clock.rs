//! The clock of backends. Every other reading of the time is a lint error.

use tokio::time::Instant;

pub use stanchion_runtime::clock::now;

/// Returns the monotonic time, for waits: setting the time of day changes no back-off, deadline or lifetime.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
