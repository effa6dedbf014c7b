//! When a registry that has had too many requests wants to be asked again (RFC 9110, 10.2.3).

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use oci_client::Reference;
use stanchion_sdk::runtime::Error;

use super::registry::Endpoint;

/// When the registry does not say.
pub(super) const UNSAID: Duration = Duration::from_secs(30);
/// The longest that is believed.
const LONGEST: Duration = Duration::from_secs(3600);

/// The error with the time that the registry asks for, if it is one of too many requests. The client library does not
/// show the answer's header, so it is asked for once more, without a body.
pub(super) async fn after(error: Error, endpoint: &Endpoint, reference: &Reference) -> Error {
    if error.retry_delay().is_none() {
        return error;
    }
    let scheme = if endpoint.plain { "http" } else { "https" };
    let version = reference.digest().or(reference.tag()).unwrap_or("latest");
    let url =
        format!("{scheme}://{}/v2/{}/manifests/{version}", endpoint.host, endpoint.repository(reference.repository()));
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build();
    let Ok(request) = client.map(|client| client.head(url)) else { return error };
    match request.send().await {
        Ok(answer) => match answer.headers().get("retry-after").and_then(|value| value.to_str().ok()) {
            Some(value) => error.retry_after(delay(value, Timestamp::now()).unwrap_or(UNSAID)),
            None => error,
        },
        Err(_) => error,
    }
}

/// The header's value, at most an hour: seconds, a date, or, as Docker Hub has it, seconds since 1970.
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
