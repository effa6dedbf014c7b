//! Placeholder.
pub use stanchion_runtime as runtime;
