//! Times that a scalar tagged `!!timestamp` may have.

/// Returns whether Kubernetes' library reads a text as a time: `2006-1-2` alone, with a space and `15:4:5`, or with a
/// `T`, `15:4:5` and a zone.
pub(super) fn is_one(text: &str) -> bool {
    let (date, time) = match text.find([' ', 'T', 't']) {
        Some(at) => (&text[..at], Some((text.as_bytes()[at], &text[at + 1..]))),
        None => (text, None),
    };
    let is_time = match time {
        None => true,
        Some((b' ', time)) => is_time(time),
        Some((_, time)) => match time.strip_suffix('Z').or_else(|| without_offset(time)) {
            Some(time) => is_time(time),
            None => false,
        },
    };
    is_date(date) && is_time
}

/// Parses a number of one or two digits.
fn number(text: &str) -> Option<i8> {
    let is_number = matches!(text.len(), 1 | 2) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let year = parts.next().filter(|year| year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()));
    let year = year.and_then(|year| year.parse().ok());
    let (month, day) = (parts.next().and_then(number), parts.next().and_then(number));
    matches!((year, month, day), (Some(year), Some(month), Some(day)) if jiff::civil::Date::new(year, month, day).is_ok())
}

fn is_time(text: &str) -> bool {
    let (text, fraction) = match text.split_once(['.', ',']) {
        Some((text, fraction)) => (text, Some(fraction)),
        None => (text, None),
    };
    let mut parts = text.splitn(3, ':');
    let mut within = |most: i8| parts.next().and_then(number).is_some_and(|number| number <= most);
    let is_fraction = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    within(23) && within(59) && within(59) && fraction.is_none_or(is_fraction)
}

/// Returns a time without its zone, such as `+07:00`.
fn without_offset(text: &str) -> Option<&str> {
    let at = text.len().checked_sub(6)?;
    let (time, offset) = (text.get(..at)?, text.get(at..)?);
    let (hours, minutes) = offset.strip_prefix(['+', '-'])?.split_once(':')?;
    let is_offset = hours.len() == 2 && number(hours)? <= 24 && number(minutes)? <= 60;
    is_offset.then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_kubernetes_library() {
        for text in [
            "2024-01-02",
            "2024-1-2",
            "2024-02-29",
            "2024-01-02T03:04:05Z",
            "2024-01-02t3:4:5.678+01:00",
            "2024-01-02 03:04:05",
            "2024-01-02 03:04:05.5",
        ] {
            assert!(is_one(text), "{text}");
        }
        for text in [
            "",
            "foo",
            "2024",
            "24-01-02",
            "2024-13-02",
            "2023-02-29",
            "2024-01-02T03:04:05",
            "2024-01-02 03:04",
            "2024-01-02 24:00:00",
            "2024-01-02 03:04:05 Z",
            "2024-01-02T03:04:05+1:00",
            "2024-01-02 03:04:05.",
        ] {
            assert!(!is_one(text), "{text}");
        }
    }
}
