//! The pause program, which holds a pod's namespaces and reaps processes that have lost their parent.

/// Static executable built by `build.rs`.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
