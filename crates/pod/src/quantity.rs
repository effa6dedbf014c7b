//! Kubernetes quantities: `500m`, `64Mi`, `1e3`.

use std::{cmp::Ordering, fmt};

/// Amount: a whole number times a power of ten. It keeps its format, and is printed that way again.
#[derive(Clone, Debug)]
pub(crate) struct Quantity {
    amount: i128,
    /// Power of ten.
    scale: i32,
    format: Format,
    /// Original text, if it is in canonical form already.
    text: Option<String>,
}

/// Format in which a quantity is printed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    /// `12M`
    Decimal,
    /// `12Mi`
    Binary,
    /// `12e6`
    Exponent,
}

/// Error of a text that is not a quantity, in the API server's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Scale of the finest amount: a billionth.
const NANO: i32 = -9;
/// Scale of resources: thousandths.
const MILLI: i32 = -3;
/// Largest number of decimal digits that are kept as they are.
const DIGITS: usize = 18;

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        if text == "0" {
            return Ok(Self { amount: 0, scale: 0, format: Format::Decimal, text: Some(text.to_owned()) });
        }
        let (is_negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = |text: &str| text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits(unsigned));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        is_suffix(suffix).then_some(()).ok_or(QuantityError::Format)?;
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let (base, exponent, format) = suffixed(suffix).ok_or(QuantityError::Suffix)?;
        let shifted = format!("{whole}{fraction}");
        let sign = if is_negative { -1 } else { 1 };
        let places = i32::try_from(fraction.len()).map_err(|_| QuantityError::Number)?;
        if base == 10 && shifted.len() <= DIGITS && exponent - places >= NANO {
            let amount = shifted.parse::<i128>().map_err(|_| QuantityError::Number)?;
            let scale = exponent - places;
            let is_canonical = scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0');
            let text = is_canonical.then(|| text.to_owned());
            return Ok(Self { amount: sign * amount, scale, format, text });
        }
        if base == 2 && fraction.is_empty() && whole.len() + usize::try_from(exponent * 3 / 10).unwrap_or(0) < 15 {
            let value = whole.parse::<i128>().map_err(|_| QuantityError::Number)?;
            let text = (value & 7 != 0).then(|| text.to_owned());
            return Ok(Self { amount: sign * (value << exponent), scale: 0, format, text });
        }
        let (amount, scale) = large(&shifted, base, exponent, places).ok_or(QuantityError::Number)?;
        Ok(Self { format, ..Self::bounded(sign, amount, scale, format) })
    }

    /// Rounds up to a billionth, and caps a binary amount at what 63 bits hold.
    fn bounded(sign: i128, amount: i128, scale: i32, format: Format) -> Self {
        let (mut amount, mut scale) = round_up(amount, scale, NANO);
        let most = i128::from(i64::MAX);
        if format == Format::Binary && compare((amount, scale), (most, 0)) == Ordering::Greater {
            (amount, scale) = (most, 0);
        }
        Self { amount: sign * amount, scale, format, text: None }
    }

    /// Rounds up (away from zero) to thousandths, the scale of resources.
    pub fn round_up_to_milli(mut self) -> Self {
        if self.scale < MILLI {
            (self.amount, self.scale) = round_up(self.amount, self.scale, MILLI);
            self.text = None;
        }
        self
    }

    /// Returns the amount in thousandths, rounded up; `None` if it is below zero or too large.
    pub fn milli(&self) -> Option<u128> {
        let (amount, scale) = round_up(self.amount, self.scale, MILLI);
        let power = 10_i128.checked_pow(u32::try_from(scale - MILLI).ok()?)?;
        u128::try_from(amount.checked_mul(power)?).ok()
    }

    pub fn is_negative(&self) -> bool {
        self.amount < 0
    }

    pub fn is_zero(&self) -> bool {
        self.amount == 0
    }

    /// Returns whether it is a whole number.
    pub fn is_whole(&self) -> bool {
        self.scale >= 0 || self.amount % power(-self.scale) == 0
    }

    /// Returns whether it is a whole multiple of another that is not zero.
    pub fn is_multiple_of(&self, other: &Self) -> bool {
        let scale = self.scale.min(other.scale);
        let raised = |it: &Self| it.amount.checked_mul(10_i128.checked_pow(u32::try_from(it.scale - scale).ok()?)?);
        match (raised(self), raised(other)) {
            (Some(this), Some(other)) => other != 0 && this % other == 0,
            _ => false,
        }
    }

    /// Returns the sum, in the format of `self`, or of `other` if `self` is zero.
    pub fn plus(&self, other: &Self) -> Self {
        let scale = self.scale.min(other.scale);
        let raised = |it: &Self| it.amount.saturating_mul(power(it.scale - scale));
        let format = if self.amount == 0 { other.format } else { self.format };
        Self { amount: raised(self).saturating_add(raised(other)), scale, format, text: None }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        compare((self.amount, self.scale), (other.amount, other.scale))
    }
}

impl fmt::Display for Quantity {
    /// Writes the amount without fraction, with the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.amount == 0 {
            return f.write_str("0");
        }
        if self.format == Format::Binary
            && let Some(bytes) = self.whole_kibibytes()
        {
            let (mut amount, mut suffix) = (bytes, 0);
            while amount % 1024 == 0 && suffix < BINARY.len() - 1 {
                (amount, suffix) = (amount / 1024, suffix + 1);
            }
            return write!(f, "{amount}{}", BINARY[suffix]);
        }
        let (mut amount, mut exponent) = (self.amount, self.scale);
        while amount % 10 == 0 {
            (amount, exponent) = (amount / 10, exponent + 1);
        }
        while exponent.rem_euclid(3) != 0 {
            (amount, exponent) = (amount.saturating_mul(10), exponent - 1);
        }
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(f, "{amount}"),
            (Format::Exponent, exponent) => write!(f, "{amount}e{exponent}"),
            (_, exponent) => {
                let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(suffix, _)| suffix);
                write!(f, "{amount}{suffix}")
            }
        }
    }
}

impl Quantity {
    /// Returns the amount, if it is whole and its absolute value is at least 1024: only then is a binary suffix of use.
    fn whole_kibibytes(&self) -> Option<i128> {
        let whole = match self.scale {
            0.. => self.amount.checked_mul(10_i128.checked_pow(self.scale.unsigned_abs())?)?,
            _ => {
                let power = power(-self.scale);
                (self.amount % power == 0).then_some(self.amount / power)?
            }
        };
        (whole.abs() >= 1024).then_some(whole)
    }
}

const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];

/// Returns whether a text matches `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn is_suffix(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(['e', 'E', 'i', 'n', 'u', 'm', 'k', 'K', 'M', 'G', 'T', 'P']);
    let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the base, the exponent and the format of a suffix.
fn suffixed(suffix: &str) -> Option<(i32, i32, Format)> {
    if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
        return Some((10, *power, Format::Decimal));
    }
    if let Some(index) = BINARY.iter().position(|known| *known == suffix) {
        return Some((2, i32::try_from(index * 10).ok()?, Format::Binary));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty())?;
    // Beyond this nothing is meant; the API server computes on with what is left of the number.
    let exponent = exponent.parse::<i32>().ok().filter(|exponent| exponent.abs() <= 1000)?;
    Some((10, exponent, Format::Exponent))
}

/// Parses a number with many digits or a binary fraction; returns its amount and scale.
fn large(digits: &str, base: i32, exponent: i32, places: i32) -> Option<(i128, i32)> {
    let amount = digits.parse::<i128>().ok()?;
    match base {
        2 => Some((amount.checked_shl(exponent.unsigned_abs())?, -places)).filter(|(shifted, _)| {
            // The shift must not have lost bits.
            shifted >> exponent == amount
        }),
        _ => Some((amount, exponent - places)),
    }
}

/// Rounds away from zero to the scale `to`, if the amount is finer.
fn round_up(amount: i128, scale: i32, to: i32) -> (i128, i32) {
    if scale >= to {
        return (amount, scale);
    }
    let Some(power) = 10_i128.checked_pow(scale.abs_diff(to)) else { return (amount.signum(), to) };
    let rest = amount % power;
    (amount / power + rest.signum(), to)
}

/// Returns ten to that power, at most `i128::MAX`.
fn power(exponent: i32) -> i128 {
    u32::try_from(exponent).map_or(1, |exponent| 10_i128.checked_pow(exponent).unwrap_or(i128::MAX))
}

fn compare(one: (i128, i32), other: (i128, i32)) -> Ordering {
    let scale = one.1.min(other.1);
    let raised = |(amount, from): (i128, i32)| {
        let power = 10_i128.checked_pow(u32::try_from(from - scale).ok()?)?;
        amount.checked_mul(power)
    };
    match (raised(one), raised(other)) {
        (Some(one), Some(other)) => one.cmp(&other),
        // An amount that overflows is larger, in absolute value, than any that does not.
        (None, Some(_)) => one.0.cmp(&0),
        (Some(_), None) => 0.cmp(&other.0),
        (None, None) => one.0.signum().cmp(&other.0.signum()).then(one.1.cmp(&other.1)),
    }
}

#[cfg(test)]
mod tests;
