//! Everything that the Stanchion agent shows, and the form in which a client requests it. The agent writes here; the
//! local API and the command line read here. Nothing here decides what happens to a pod.
//!
//! # Layout
//! - [`Board`]: pods, backends and sources as of now, each with the revision of its last change. `objects`: the changes since
//!   a revision.
//! - [`EventLog`]: events, in memory. [`Journal`]: the same on disk, for the next agent.
//! - [`view`]: the types of the local API's answers. [`exec`], [`frame`]: the streams of an exec over one connection.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read what they have made"))]

mod board;
mod events;
pub mod exec;
pub mod frame;
mod limits;
mod objects;
pub mod view;

pub use board::Board;
pub use events::{EventLog, Journal, Subject};
pub use objects::{Change, ChangeKind, Listed, TooOld};
