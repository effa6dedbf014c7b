//! Kubernetes' quantities: `500m`, `64Mi`, `1e3`.

/// A quantity in thousandths, rounded up (R-DEF-1); `None` when it is not one.
pub(crate) fn milli(text: &str) -> Option<u128> {
    let split =
        text.find(|char: char| !(char.is_ascii_digit() || matches!(char, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    // `1e3` and `1E3` are numbers; a bare `E` is the suffix exa.
    let (number, multiplier) = match suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        Some(exponent) if !suffix.ends_with('i') => {
            let exponent: u32 = exponent.parse().ok().filter(|exponent| *exponent <= 18)?;
            (number, Multiplier::times(10_u128.checked_pow(exponent)?))
        }
        _ => (number, multiplier(suffix)?),
    };
    scaled(number.strip_prefix('+').unwrap_or(number), multiplier)
}

/// A factor as a fraction.
#[derive(Clone, Copy)]
struct Multiplier {
    times: u128,
    over: u128,
}

impl Multiplier {
    const fn times(times: u128) -> Self {
        Self { times, over: 1 }
    }
}

fn multiplier(suffix: &str) -> Option<Multiplier> {
    let power = |base: u128, exponent| Some(Multiplier::times(base.pow(exponent)));
    match suffix {
        "n" => Some(Multiplier { times: 1, over: 1_000_000_000 }),
        "u" => Some(Multiplier { times: 1, over: 1_000_000 }),
        "m" => Some(Multiplier { times: 1, over: 1000 }),
        "" => power(1, 1),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => None,
    }
}

fn scaled(number: &str, multiplier: Multiplier) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let over = 10_u128.pow(u32::try_from(fraction.len()).ok()?).checked_mul(multiplier.over)?;
    let times = digits.parse::<u128>().ok()?.checked_mul(multiplier.times)?.checked_mul(1000)?;
    Some(times.div_ceil(over))
}

#[cfg(test)]
mod tests {
    use super::milli;

    #[test]
    fn quantities_are_read_as_kubernetes_does() {
        for (text, expected) in [
            ("500m", Some(500)),
            ("0.5", Some(500)),
            ("2", Some(2000)),
            ("1e3", Some(1_000_000)),
            ("64Mi", Some((64 << 20) * 1000)),
            ("1M", Some(1_000_000_000)),
            ("1u", Some(1)),
            ("", None),
            ("-1", None),
            ("1Xi", None),
            ("one", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }
}
