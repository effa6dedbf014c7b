//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

// Registries.

// Archives.

// Files.
