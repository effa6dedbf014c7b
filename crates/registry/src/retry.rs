//! Delay before a busy registry may be asked again (RFC 9110, 10.2.3).

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use stanchion_sdk::clock;

/// Delay when the registry names none.
const UNSAID: Duration = Duration::from_secs(30);
/// Longest delay that is believed.
const LONGEST: Duration = Duration::from_secs(3600);

/// Returns how long a registry wants to be left alone, by its answer's headers. A date counts from the answer's own
/// `Date`: this node's clock may be wrong by hours.
pub(super) fn after(headers: &HeaderMap) -> Duration {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let date = text(DATE).and_then(|date| Some(rfc2822::parse(date).ok()?.timestamp()));
    text(RETRY_AFTER).and_then(|value| delay(value, date.unwrap_or_else(clock::now))).unwrap_or(UNSAID)
}

/// Parses the header's value, at most an hour: seconds, a date, or, as Docker Hub sends it, seconds since 1970.
fn delay(value: &str, now: Timestamp) -> Option<Duration> {
    let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let asked = match value.trim().parse::<i64>() {
        Ok(seconds) if seconds > 1_000_000_000 => until(Timestamp::from_second(seconds).ok()?),
        Ok(seconds) => Duration::from_secs(u64::try_from(seconds).ok()?),
        Err(_) => until(rfc2822::parse(value).ok()?.timestamp()),
    };
    Some(asked.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_measured_by_the_registrys_own_clock() {
        let headers = [(DATE, "Mon, 05 Jan 2026 10:00:00 GMT"), (RETRY_AFTER, "Mon, 05 Jan 2026 10:00:20 GMT")];
        let headers = headers.into_iter().map(|(name, value)| (name, value.parse().expect("a value"))).collect();
        assert_eq!(after(&headers), Duration::from_secs(20));
    }

    #[test]
    fn a_retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-01-05T10:00:00Z".parse().expect("a time");
        for (value, wanted) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Mon, 05 Jan 2026 10:00:20 GMT", Some(20)),
            ("Mon, 05 Jan 2026 09:00:00 GMT", Some(0)),
            ("1767607230", Some(30)),
            ("999999", Some(3600)),
            ("-3", None),
            ("soon", None),
        ] {
            assert_eq!(delay(value, now), wanted.map(Duration::from_secs), "{value}");
        }
    }
}
