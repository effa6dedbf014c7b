//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Files of images.

/// `/etc/passwd` and `/etc/group` of an image, which have a line for each user and group. Of a longer one only the beginning
/// is read, and that is logged.
pub(crate) const TABLE: Limit = Limit::new("table of users of an image", 1 << 20);

// Archives.

// The node's own files.

/// One file of `/proc` about one process, which the kernel keeps within a page or two. A longer one is not read.
pub(crate) const PROCESS: Limit = Limit::new("state of a process", 64 << 10);
/// The environment of a process, which it can enlarge at will. What is behind is not looked at.
pub(crate) const ENVIRONMENT: Limit = Limit::new("environment of a process", 1 << 20);
