//! Sets of capabilities in the form of `/proc/PID/status`.

use crate::CAPABILITIES;

/// All capabilities.
pub(super) const ALL: u64 = (1 << CAPABILITIES.len()) - 1;
/// Capabilities of containers without security settings: the default set of containerd and Docker.
pub(super) const USUAL: u64 = 0xa804_25fb;

/// Returns the bits of one name; `ALL` is every one.
pub(super) fn bits(name: &str) -> Option<u64> {
    match name {
        "ALL" => Some(ALL),
        name => CAPABILITIES.iter().position(|known| *known == name).map(|number| 1 << number),
    }
}
