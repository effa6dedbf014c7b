//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

/// Layers of an image whose progress is followed, as many as an image may have. Docker's messages about more are
/// ignored.
pub(crate) const LAYERS: Limit = Limit::new("layers of a pull", 1024);
/// Docker's message about a pull or an import, bytes: it repeats text of registries and archives. The rest is cut.
pub(crate) const WORDS: Limit = Limit::new("words of Docker", 1024);

/// Answer of Docker that is read whole, bytes: it has the labels and the environment of images, which dockerd takes at
/// any size. The lists of a node with hundreds of containers have some MiB. A larger answer is refused, and an image
/// that has caused it is removed.
pub(crate) const ANSWER: Limit = Limit::new("answer of Docker", 32 << 20);

// Files.

/// Seccomp profile of an administrator. With a larger one the container does not start.
pub(crate) const PROFILE: Limit = Limit::new("seccomp profile", 4 << 20);
