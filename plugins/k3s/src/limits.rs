//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Files.

/// A file of settings that an administrator writes: `registries.yaml`, a list of images. A larger one is left out.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);
