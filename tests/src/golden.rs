//! Recordings of a kubelet, and how a node of Stanchion's is held against them: steps that were done to the kubelet are done to
//! the node, and what the node shows is brought into the recording's words and compared.
//!
//! # Layout
//! - [`Words`]: the recording's words for what differs from machine to machine. [`compare`]: JSON against JSON.
//! - [`timeline`]: the order in which states were seen. [`trace`]: what containers wrote, and when. [`images`]: the images.
//! - [`socket`]: the agent, asked without a program in between.

pub mod compare;
pub mod images;
pub mod socket;
pub mod timeline;
pub mod trace;
mod words;

pub use words::Words;
