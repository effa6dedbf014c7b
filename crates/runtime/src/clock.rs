//! Wall-clock time for display, logs and messages. No wait depends on it, because an administrator can set it.

use jiff::Timestamp;

/// Returns the wall-clock time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
