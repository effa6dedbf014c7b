//! The program that does nothing but hold a pod's namespaces, and collect processes that have lost their parent.

/// The program, static, built by `build.rs`.
pub static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
