//! Means to test agents and backends (feature `testing`).
//!
//! # Layout
//! - [`FakeRuntime`]: a runtime in memory that keeps the contract, and breaks it where a test's fault script says so.
//! - [`Method`], [`Call`], [`Fault`], [`When`], [`Hold`]: what was called, and what shall go wrong.
//! - [`Program`]: what a fake container does when it runs.
//! - [`Violation`]: a promise of the agent's that the fake has seen broken.
//! - `capabilities`: their names and numbers.
//! - [`conformance`]: the suite that every backend must pass.

mod capabilities;
pub mod conformance;
mod fake;

use fake::GROW;
pub use fake::{Call, FakeRuntime, Fault, Hold, Method, Program, TermAction, Violation, When};
