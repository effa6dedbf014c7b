//! The clock of backends. Every other reading of the time is a lint error.

pub use stanchion_runtime::clock::{instant, now};
