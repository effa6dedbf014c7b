//! Sets of capabilities, as `/proc/PID/status` shows them.

use crate::CAPABILITIES;

/// Every one.
pub(super) const ALL: u64 = (1 << CAPABILITIES.len()) - 1;
/// What containers have that ask for nothing: the set of containerd and Docker.
pub(super) const USUAL: u64 = 0xa804_25fb;

/// The set of one name; `ALL` is every one.
pub(super) fn bits(name: &str) -> Option<u64> {
    match name {
        "ALL" => Some(ALL),
        name => CAPABILITIES.iter().position(|known| *known == name).map(|number| 1 << number),
    }
}
