//! UTC time in the two formats that the logger writes.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Point in time, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Seconds since 1970.
    seconds: u64,
    nanos: u32,
}

impl Utc {
    /// Returns the current time of the node's clock. A clock before 1970 counts as 1970.
    pub fn now() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the logger's clock: lines carry the time of day")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: since.as_secs(), nanos: since.subsec_nanos() }
    }

    /// Formats the time as kubelet does in the name of a rotated file: `20261123-211530`.
    pub fn compact(self) -> String {
        let ([year, month, day], [hour, minute, second]) = self.fields();
        format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
    }

    /// Returns `[year, month, day]` and `[hour, minute, second]`.
    fn fields(self) -> ([u64; 3], [u64; 3]) {
        let (days, second) = (self.seconds / 86_400, self.seconds % 86_400);
        // Gregorian calendar in eras of 400 years that begin on 1 March of a year 0.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        ([year, month, day], [second / 3600, second / 60 % 60, second % 60])
    }
}

impl fmt::Display for Utc {
    /// Writes RFC 3339 with nanoseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([year, month, day], [hour, minute, second]) = self.fields();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000007Z"),
            (1_795_468_530, "2026-11-23T21:15:30.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(Utc { seconds, nanos: 7 }.to_string(), text);
        }
    }

    #[test]
    fn names_of_files_have_kubelets_form() {
        assert_eq!(Utc { seconds: 1_795_468_530, nanos: 0 }.compact(), "20261123-211530");
    }
}
