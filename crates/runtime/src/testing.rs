//! Test doubles and the conformance suite for agents and backends (feature `testing`).
//!
//! # Layout
//! - [`FakeRuntime`]: a runtime in memory that keeps the contract, and breaks it as a test's fault script says.
//! - [`Method`], [`Call`], [`Fault`], [`When`], [`Hold`]: recorded calls and scripted faults.
//! - [`Entry`], [`Fact`]: the journal of calls and changes.
//! - [`Program`]: behaviour of a fake container.
//! - [`Violation`]: a promise of the agent that the fake has seen broken.
//! - `capabilities`: names and numbers of capabilities.
//! - [`conformance`]: the suite that every backend must pass.

mod capabilities;
pub mod conformance;
mod fake;

use fake::GROW;
pub use fake::{Call, Entry, Fact, FakeRuntime, Fault, Hold, Method, Program, TermAction, Violation, When};
