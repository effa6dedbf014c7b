//! Stanchion's backend for containerd, through its native API.

pub mod client;
