//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

// Files.

// Volumes and pods.

// Texts, probes and hooks.

// Listeners and logs.
