//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

// Registries.

// Archives.

use stanchion_untrusted::Limit;

// Files.

/// A seccomp profile that an administrator writes. With a larger one the container does not start.
pub(crate) const PROFILE: Limit = Limit::new("seccomp profile", 4 << 20);
