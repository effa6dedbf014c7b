//! Reads files that others can write: containers, administrators with an editor, the makers of images and archives; measures
//! and removes their directories.
//!
//! Anyone who can write a file can make it endless, a FIFO, a device or a link to somewhere else, and can exchange it between
//! two calls. Every function here looks at the file that it has opened, never waits for a writer, opens no device, and reads no
//! more than its [`Limit`] allows. Contents are bytes; only their reader knows whether they are text.
//!
//! # Layout
//! - [`limit`]: a bound with a name. [`file`]: regular files, opened and read. [`tree`]: directory trees, measured, visited
//!   and removed. [`text`]: texts made fit for a terminal.

pub mod file;
pub mod limit;
pub mod text;
pub mod tree;

pub use file::{KERNEL_FILE, Links, open, open_at, read, read_from, read_kernel, read_start, read_text};
pub use limit::{Limit, TooLarge, TooMany};
