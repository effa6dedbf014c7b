//! Recordings of a kubelet, and their comparison with a node: the recorded steps are repeated on the node, and the
//! node's output is translated into the recording's terms and compared.
//!
//! # Layout
//! - [`Words`]: translation of values that differ from machine to machine. [`compare`]: comparison of JSON.
//! - [`timeline`]: the order in which states were seen. [`trace`]: lines that containers wrote, and when. [`images`]:
//!   the images.
//! - [`socket`]: requests to the agent's socket, without a client program.

pub mod compare;
pub mod images;
pub mod socket;
pub mod timeline;
pub mod trace;
mod words;

pub use words::Words;
