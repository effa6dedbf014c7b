//! Limits on input from others, each with its reason. `docs/limits.md` lists them all.

/// Maximum length of an error's message and of each cause, bytes. A registry, daemon or plugin may send texts of any
/// length, and the agent shows, logs and keeps them with the pod. Longer texts are cut.
pub(crate) const ERROR_TEXT: usize = 4096;

/// Maximum number of causes that an error keeps; deeper ones are dropped.
pub(crate) const ERROR_CAUSES: usize = 16;
