//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

/// The message of an error and the text of each cause, bytes. A registry, a daemon or a plugin may say as much as it likes,
/// and what it said is shown, logged and kept with the pod. Longer ones are cut.
pub(crate) const ERROR_TEXT: usize = 4096;

/// The causes that an error keeps; what lies deeper is left out.
pub(crate) const ERROR_CAUSES: usize = 16;
