//! Randomness that is none: the keys of hash maps, and with them the order of all that they hold, are the same in each
//! process. The standard library takes its keys from `getrandom`, and tokio its seeds from such keys.

#![expect(unsafe_code, reason = "a function of the C library is replaced")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of calls so far.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Replaces the C library's function (getrandom(2)) in this program.
// SAFETY: the name and the signature are those of the C library, which no other part of this program defines.
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if buffer.is_null() {
        return 0;
    }
    let mut random = stanchion_simulation::random::Random::new(CALLS.fetch_add(1, Ordering::Relaxed));
    for place in 0..length {
        // SAFETY: the caller gives `length` bytes at `buffer`, which is not null.
        unsafe { buffer.add(place).write(random.draw().to_le_bytes()[0]) };
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
