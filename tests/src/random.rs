//! Seeded random numbers, so that a failure can be reproduced.

use std::{
    env,
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Takes the seed from `STANCHION_SEED`, or from the clock; prints it.
    #[must_use]
    pub fn announced(test: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = seed().unwrap_or(u64::from(now.subsec_nanos()) ^ now.as_secs());
        println!("{test}: STANCHION_SEED={seed} repeats this run's choices");
        Self(seed)
    }

    /// Returns the numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Returns a number from 0 to below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    /// Returns a number of `range`, which must not be empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// Returns a duration within `range`, in milliseconds.
    pub fn moment(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Returns an index of a list of that length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a usize")
    }

    /// Returns `true` in this many of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// Returns one of these, each as often as its weight says.
    pub fn weighed<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for (weight, it) in of {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return *it,
            }
        }
        unreachable!("the number is below the sum of the weights")
    }
}

/// Returns the seed of `STANCHION_SEED`.
#[must_use]
pub fn seed() -> Option<u64> {
    env::var("STANCHION_SEED").ok()?.parse().ok()
}
