//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Files.

/// K3s's `registries.yaml`, bytes: a hundred registries have some 50 KiB. A larger one is left out, with a warning.
pub(crate) const REGISTRIES: Limit = Limit::new("registries.yaml", 1 << 20);
/// Nesting depth of `registries.yaml`; what K3s reads of it is five deep. A deeper one is left out, with a warning.
pub(crate) const DEPTH: usize = 32;
/// List of images in K3s's directory of images, bytes. Nothing of a larger one is pulled, with a warning.
pub(crate) const LIST: Limit = Limit::new("list of images", 1 << 20);
