//! Tests of the whole agent on fake runtimes: the invariants that ARCHITECTURE.md numbers (I1 to I8), other features,
//! and a random walk.
//!
//! Manifests are real files in a temporary directory. The clock is tokio's and paused: waiting takes no time, and times
//! are exact. Every test checks I1, see [`node`].

#![allow(clippy::disallowed_methods, reason = "tests measure, and read and remove what they have made")]

mod addresses;
mod allocations;
mod clock;
mod hooks;
mod i1_failover;
mod i1_one_incarnation;
mod i2_sources;
mod i3_untouched;
mod i4_restarts;
mod i5_i6_ends;
mod i7_shown;
mod i8_isolation;
mod image_volumes;
mod images;
mod init_containers;
mod kept;
mod links;
mod manifest;
mod node;
mod objects;
mod probes;
mod removed;
mod restart_rules;
mod shutdown;
mod sources;
mod storage;
mod termination_messages;
mod unused_images;
mod update;
mod users;
mod volumes;
mod walk;
