//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Files.

/// File that containerd or its runtime keeps about a container, e.g. its OCI configuration with our record of it. A
/// larger one counts as unreadable.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the backend", 64 << 20);

/// Settings file of an administrator: a seccomp profile. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

/// Number of `VOLUME`s of an image: each is a snapshot and a mount. A container of an image with more does not start.
pub(crate) const VOLUMES: Limit = Limit::new("volumes of an image", 64);
/// Depth of the directories in an image's `VOLUME`, levels: each takes descriptors during the copy. A container with
/// deeper ones does not start.
pub(crate) const VOLUME_DEPTH: Limit = Limit::new("levels of directories in an image's volume", 200);
/// Value of an extended attribute, or the list of their names: Linux allows no more (xattr(7)).
pub(crate) const ATTRIBUTE: Limit = Limit::new("extended attribute", 64 << 10);
