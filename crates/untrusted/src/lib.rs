//! Reads files that others can write: containers, administrators with an editor, authors of images and archives.
//! Measures and removes their directories.
//!
//! Anyone who can write a file can make it endless, a FIFO, a device or a link to somewhere else, and can swap it
//! between two calls. Every function here checks the file that it has opened, never waits for a writer, opens no
//! device, and reads no more than its [`Limit`] allows. Contents are bytes; only the caller knows whether they are
//! text.
//!
//! # Layout
//! - [`limit`]: named limits. [`file`]: opens and reads regular files, and makes directories that are root's alone. [`tree`]: measures, visits and removes directory
//!   trees. [`text`]: escapes text for a terminal.

pub mod file;
pub mod limit;
pub mod text;
pub mod tree;

pub use file::{
    KERNEL_FILE, Links, make_directory, open, open_at, read, read_from, read_kernel, read_start, read_text,
};
pub use limit::{Limit, TooLarge, TooMany};
