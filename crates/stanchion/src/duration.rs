//! Durations as kubectl reads them: Go's `time.ParseDuration`, `1h30m`, `500ms`, `1.5h`.

use anyhow::{Result, anyhow};

/// Parses a duration, which may be negative, into nanoseconds.
///
/// # Errors
/// The text is no duration, or is longer than 292 years; the messages are Go's.
pub fn parse(text: &str) -> Result<i64> {
    let invalid = || anyhow!("time: invalid duration {text:?}");
    let (is_negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let (mut total, mut rest): (u64, &str) = (0, rest);
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (part, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && part.is_empty() {
            return Err(invalid());
        }
        let unit = after.find(|char: char| char == '.' || char.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale: u64 = match unit {
            "" => return Err(anyhow!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            // The micro sign and the Greek letter mu.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(anyhow!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let nanos = whole.checked_mul(scale).and_then(|nanos| nanos.checked_add(fraction(part, scale)));
        total = nanos.and_then(|nanos| total.checked_add(nanos)).ok_or_else(invalid)?;
        rest = after;
    }
    let most = i64::MAX.unsigned_abs() + u64::from(is_negative);
    match total {
        total if total > most => Err(invalid()),
        total if is_negative => Ok(0_i64.wrapping_sub_unsigned(total)),
        total => i64::try_from(total).map_err(|_| invalid()),
    }
}

/// Splits a text into its leading digits and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()))
}

/// Converts the digits after a decimal point to whole nanoseconds of a unit; smaller digits are ignored.
fn fraction(digits: &str, scale: u64) -> u64 {
    let (mut nanos, mut unit) = (0, u128::from(scale) * 1_000_000_000);
    for digit in digits.bytes().take(30) {
        unit /= 10;
        nanos += u128::from(digit - b'0') * unit;
    }
    u64::try_from(nanos / 1_000_000_000).unwrap_or(scale)
}

#[cfg(test)]
mod tests {
    use super::parse;

    // The table of Go's own test, without the cases that depend on its floating-point rounding.
    #[test]
    fn durations_are_read_as_go_reads_them() {
        const SECOND: i64 = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5 * SECOND),
            ("1478s", 1478 * SECOND),
            ("-5s", -5 * SECOND),
            ("+5s", 5 * SECOND),
            ("5.0s", 5 * SECOND),
            ("5.6s", 5 * SECOND + 600_000_000),
            ("5.s", 5 * SECOND),
            (".5s", SECOND / 2),
            ("1.004s", SECOND + 4_000_000),
            ("100.00100s", 100 * SECOND + 1_000_000),
            ("10ns", 10),
            ("11us", 11_000),
            ("12\u{b5}s", 12_000),
            ("12\u{3bc}s10ns", 12_010),
            ("13ms", 13_000_000),
            ("15m", 900 * SECOND),
            ("16h", 57_600 * SECOND),
            ("1h30m", 5400 * SECOND),
            ("1.5h", 5400 * SECOND),
            ("500ms", SECOND / 2),
            ("10.5s4m", 250 * SECOND + SECOND / 2),
            ("-2m3.4s", -(123 * SECOND + 400_000_000)),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("9223372036.854775807s", i64::MAX),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Ok(nanos), "{text}");
        }
        for (text, error) in [
            ("", "time: invalid duration \"\""),
            ("3", "time: missing unit in duration \"3\""),
            ("-", "time: invalid duration \"-\""),
            ("s", "time: invalid duration \"s\""),
            (".", "time: invalid duration \".\""),
            (".s", "time: invalid duration \".s\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1h 5m", "time: unknown unit \"h \" in duration \"1h 5m\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
            ("99999999999999999999h", "time: invalid duration \"99999999999999999999h\""),
        ] {
            assert_eq!(parse(text).map_err(|error| error.to_string()), Err(error.to_owned()), "{text}");
        }
    }
}
