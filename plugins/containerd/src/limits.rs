//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

// Archives.

// Files.

/// A file that this library has written for itself, e.g. a lease or the attachment of a pod, or containerd's record of a container. A
/// larger one is none: it counts as one that cannot be read.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the backend", 64 << 20);

/// A file of settings that an administrator writes: a CNI configuration list, a seccomp profile. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

/// How many volumes an image declares: each is a snapshot and a mount. A container of an image with more does not start.
pub(crate) const VOLUMES: Limit = Limit::new("volumes of an image (number)", 64);
/// How deep the directories are that an image has in a volume that it declares, in levels: each takes descriptors while it is
/// copied. A container with deeper ones does not start.
pub(crate) const VOLUME_DEPTH: Limit = Limit::new("depth of an image's volume (levels)", 200);
/// The value of an extended attribute, and the list of their names: what Linux takes (xattr(7)).
pub(crate) const ATTRIBUTE: Limit = Limit::new("extended attribute", 64 << 10);

// Network.

/// What a CNI plugin answers, or says of its failure: its result is a few KiB. A longer one fails its call.
pub(crate) const CNI_ANSWER: Limit = Limit::new("answer of a CNI plugin", 4 << 20);

/// The tables of the kernel's old packet filter, one word each: there are five.
pub(crate) const IPTABLES_TABLES: Limit = Limit::new("names of iptables' tables", 4096);
/// A kernel parameter of the network: a number.
pub(crate) const PARAMETER: Limit = Limit::new("kernel parameter", 4096);
