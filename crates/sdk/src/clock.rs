//! The clock from which backends read the time. Every other reading is a lint error.

use tokio::time::Instant;

pub use stanchion_runtime::clock::now;

/// Now, for whatever waits: no back-off, deadline or lifetime changes when somebody sets the time of day.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn instant() -> Instant {
    Instant::now()
}
