//! Resolves YAML 1.1 scalars, by the rules of the library that Kubernetes uses.

mod timestamp;

use crate::{base64, validate::quoted};

/// Resolved scalar.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    /// Number as JSON text, or `inf` or `NaN`.
    Number(String),
    Text,
    /// Text decoded from base64.
    Binary(String),
    /// Merge key, `<<`.
    Merge,
}

/// Returns whether a text, written without quotes, would be read as something else, or cannot be written without them.
pub(super) fn is_ambiguous(text: &str) -> bool {
    let is_odd = |char: char| char.is_control() && char != '\n' || matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}');
    let is_indented = text.contains('\n') && text.starts_with(char::is_whitespace);
    plain(text) != Scalar::Text || text.contains(is_odd) || is_indented
}

/// Resolves a scalar. A quoted one is text unless a tag says otherwise.
pub(super) fn resolve(text: &str, is_plain: bool, tag: Option<&str>) -> Result<Scalar, String> {
    let core = match tag {
        None if is_plain => return Ok(plain(text)),
        None => return Ok(Scalar::Text),
        Some(tag) => match core_tag(tag) {
            Some(core) => core,
            None => return Ok(Scalar::Text),
        },
    };
    let found = plain(text);
    match (core, &found) {
        ("str", _) => Ok(Scalar::Text),
        // Kubernetes' JSON encoder converts bytes that are not text.
        ("binary", _) => {
            let no_base64 = || "!!binary needs base64; remove the tag to write plain text".to_owned();
            Ok(Scalar::Binary(one_mark_for_each_byte(&base64::bytes(text).ok_or_else(no_base64)?)))
        }
        // In Kubernetes' library the tag turns `<<` in quotes into a merge key, and leaves other text as it is.
        ("merge", Scalar::Merge) => Ok(found),
        ("merge", _) => Ok(Scalar::Text),
        ("timestamp", Scalar::Text) if timestamp::is_one(text) => Ok(found),
        ("null", Scalar::Null) | ("bool", Scalar::Bool(_)) => Ok(found),
        ("int", Scalar::Number(_)) if integer(&text.replace('_', "")).is_some() => Ok(found),
        // A whole number becomes a float only if it fits 64 bits with a sign.
        ("float", Scalar::Number(_))
            if integer(&text.replace('_', "")).is_none_or(|whole| whole.parse::<i64>().is_ok()) =>
        {
            Ok(found)
        }
        _ => Err(format!("{} is no !!{core}", quoted(text))),
    }
}

/// Returns the name of a tag of YAML itself, e.g. `int`. A user's own tags mean nothing.
fn core_tag(tag: &str) -> Option<&str> {
    let name = tag.strip_prefix("tag:yaml.org,2002:")?;
    ["str", "binary", "null", "bool", "merge", "timestamp", "int", "float"].contains(&name).then_some(name)
}

/// Converts bytes to text, with one U+FFFD for every byte that is not part of a character.
fn one_mark_for_each_byte(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

/// Formats a number as the key that Kubernetes makes of it: a whole number of 64 bits in decimal, any other as Go
/// writes a float of 32 bits.
pub(super) fn number_as_key(text: &str) -> Result<String, String> {
    let digits = text.replace('_', "");
    if let Some(whole) = integer(&digits) {
        return match whole.parse::<i64>() {
            Ok(_) => Ok(whole),
            Err(_) => Err("a key must be text, or a number of 64 bits; put it in quotes".to_owned()),
        };
    }
    let lower = digits.to_ascii_lowercase();
    let unsigned = lower.trim_start_matches(['+', '-']);
    let sign = if lower.starts_with('-') { "-" } else { "" };
    match unsigned {
        ".inf" => return Ok(format!("{sign}.inf")),
        ".nan" => return Ok(".nan".to_owned()),
        _ => {}
    }
    #[allow(clippy::cast_possible_truncation, reason = "Kubernetes' own library takes 32 bits")]
    let float = digits.parse::<f64>().unwrap_or_default() as f32;
    if float.is_infinite() {
        return Ok(format!("{sign}.inf"));
    }
    // Go's `%g` with the fewest digits that identify the number.
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    Ok(match (-4..6).contains(&exponent) {
        true => format!("{float}"),
        false => format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    })
}

fn plain(text: &str) -> Scalar {
    match text.as_bytes().first() {
        None => Scalar::Null,
        Some(b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~') => word(text),
        Some(b'<') if text == "<<" => Scalar::Merge,
        Some(b'.') => match text {
            ".inf" | ".Inf" | ".INF" => Scalar::Number("inf".to_owned()),
            ".nan" | ".NaN" | ".NAN" => Scalar::Number("NaN".to_owned()),
            _ => float(text).map_or(Scalar::Text, Scalar::Number),
        },
        Some(b'+' | b'-' | b'0'..=b'9') => match text {
            "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" => Scalar::Number("inf".to_owned()),
            _ => {
                let digits = text.replace('_', "");
                integer(&digits).or_else(|| float(&digits)).map_or(Scalar::Text, Scalar::Number)
            }
        },
        Some(_) => Scalar::Text,
    }
}

fn word(text: &str) -> Scalar {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Scalar::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Scalar::Bool(false),
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        _ => Scalar::Text,
    }
}

/// Parses `0644`, `0o644`, `0x1A4`, `0b110100100`, `420`: an `i64`, or a `u64` if it has no sign.
fn integer(text: &str) -> Option<String> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("+", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.get(..2).unwrap_or_default().to_ascii_lowercase();
    let (base, digits) = match lower.as_str() {
        "0x" if digits.len() > 2 => (16, &digits[2..]),
        "0o" if digits.len() > 2 => (8, &digits[2..]),
        "0b" if digits.len() > 2 => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| char::from(byte).is_digit(base)) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    match sign {
        "-" if value <= 1 << 63 => Some(if value == 0 { "0".to_owned() } else { format!("-{value}") }),
        "-" => None,
        "+" if value > i64::MAX.unsigned_abs() => None,
        _ => Some(value.to_string()),
    }
}

fn float(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = is_digits(whole) && is_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let is_exponent = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && is_digits(digits)
    });
    if !is_number || !is_exponent {
        return None;
    }
    text.parse().ok().filter(|float: &f64| float.is_finite()).map(written)
}

/// Formats a float as Go does in JSON: `80.0` is `80`.
fn written(float: f64) -> String {
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) { format!("{float:e}") } else { format!("{float}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_mean_what_they_mean_to_kubernetes() {
        let tagged = |text: &str, tag: &str| resolve(text, true, Some(&format!("tag:yaml.org,2002:{tag}")));
        for (text, tag, expected) in [
            ("2024-01-02", "timestamp", Scalar::Text),
            ("foo", "merge", Scalar::Text),
            ("7", "merge", Scalar::Text),
            ("<<", "merge", Scalar::Merge),
            ("aGl=", "binary", Scalar::Binary("hi".to_owned())),
            ("9223372036854775807", "float", Scalar::Number("9223372036854775807".to_owned())),
            ("18446744073709551616", "float", Scalar::Number("18446744073709552000".to_owned())),
            ("18446744073709551615", "int", Scalar::Number("18446744073709551615".to_owned())),
        ] {
            assert_eq!(tagged(text, tag), Ok(expected), "R-DEC-1: !!{tag} {text}");
        }
        for (text, tag) in [("foo", "timestamp"), ("18446744073709551615", "float"), ("9223372036854775808", "float")] {
            assert_eq!(tagged(text, tag), Err(format!("\"{text}\" is no !!{tag}")), "R-DEC-1");
        }
    }

    #[test]
    fn plain_scalars_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0644", "420"),
            ("0o644", "420"),
            ("0x1A4", "420"),
            ("0b110100100", "420"),
            ("0648", "648"),
            ("1_000", "1000"),
            ("+5", "5"),
            ("-0x10", "-16"),
            ("80.0", "80"),
            ("1e3", "1000"),
            ("1.10", "1.1"),
            (".5", "0.5"),
            ("18446744073709551615", "18446744073709551615"),
            ("9223372036854775808.0", "9223372036854776000"),
        ] {
            assert_eq!(plain(text), Scalar::Number(expected.to_owned()), "R-DEC-1: {text}");
        }
        for text in ["12:30:45", "1:20", "2024-01-02", "1.2.3", "0x", "-", "+", ".", "1e", "yess", "1e400", "<", "_1"] {
            assert_eq!(plain(text), Scalar::Text, "{text}");
        }
        for text in ["y", "Yes", "on", "TRUE"] {
            assert_eq!(plain(text), Scalar::Bool(true), "{text}");
        }
        for text in ["n", "No", "OFF", "false"] {
            assert_eq!(plain(text), Scalar::Bool(false), "{text}");
        }
        for text in ["", "~", "null", "NULL"] {
            assert_eq!(plain(text), Scalar::Null, "{text}");
        }
    }
}
