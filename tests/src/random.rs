//! Seeded random numbers, so that a failure can be reproduced.

use std::{
    env,
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Takes the seed from `STANCHION_SEED`, or from the clock; prints it.
    #[must_use]
    pub fn announced(test: &str) -> Self {
        let given = env::var("STANCHION_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = given.unwrap_or(u64::from(now.subsec_nanos()) ^ now.as_secs());
        println!("{test}: STANCHION_SEED={seed} repeats this run's choices");
        Self(seed)
    }

    /// Takes a number as the seed.
    #[must_use]
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Returns a number of `range`, which must not be empty.
    pub fn pick(&mut self, range: Range<u64>) -> u64 {
        range.start + self.word() % (range.end - range.start)
    }

    /// Returns a duration within `range`, in milliseconds.
    pub fn moment(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.pick(range))
    }
}
