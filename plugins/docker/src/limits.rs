//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

/// Layers of an image whose progress is followed, as many as an image may have. Docker's words about more are passed over.
pub(crate) const LAYERS: Limit = Limit::new("layers of a pull", 1024);
/// Docker's words about a pull or an import, bytes: it repeats what registries and archives say. The rest is cut.
pub(crate) const WORDS: Limit = Limit::new("words of Docker", 1024);

// Files.

/// A seccomp profile that an administrator writes. With a larger one the container does not start.
pub(crate) const PROFILE: Limit = Limit::new("seccomp profile", 4 << 20);
