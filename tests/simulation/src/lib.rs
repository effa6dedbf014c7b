//! Simulation of the whole agent on fake runtimes and paused time: a seed makes a schedule of edits, outages, faults and kills,
//! and the invariants of ARCHITECTURE.md are checked on the journals of the runtimes.
//!
//! # Layout
//! - [`random`]: numbers of a seed. [`pod`], [`schedule`]: what a seed makes of them.
//! - [`node`]: directories, fake runtimes, and the agent. [`perform`]: the steps.
//! - [`world`]: what the schedule has done. [`ledger`]: what the runtimes did, with the invariants of each call and change.
//!   [`check`]: whether pods run as wanted, and whether the board tells the truth.
//! - [`play`](mod@play): one schedule, from its first step to the end of all pods. [`trace`]: what happened, hashed.
//! - [`many`]: many schedules, each in a process of its own.

pub mod check;
pub mod ledger;
pub mod many;
pub mod node;
pub mod perform;
pub mod play;
pub mod pod;
pub mod schedule;
pub mod trace;
pub mod world;

pub use stanchion_tests::random;
