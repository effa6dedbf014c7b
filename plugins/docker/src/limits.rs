//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

/// Layers of an image whose progress is followed, as many as an image may have. Docker's words about more are passed over.
pub(crate) const LAYERS: Limit = Limit::new("layers of a pull", 1024);
/// Docker's words about a pull or an import, bytes: it repeats what registries and archives say. The rest is cut.
pub(crate) const WORDS: Limit = Limit::new("words of Docker", 1024);

/// An answer of Docker that is read whole, bytes: it has the labels and the environment of images, which dockerd takes however
/// large they are. The lists of a node with hundreds of containers have some MiB. A larger one is refused, and an image that
/// has brought it is removed.
pub(crate) const ANSWER: Limit = Limit::new("answer of Docker", 32 << 20);

// Files.

/// A seccomp profile that an administrator writes. With a larger one the container does not start.
pub(crate) const PROFILE: Limit = Limit::new("seccomp profile", 4 << 20);
