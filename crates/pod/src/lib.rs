//! Pod manifests: from bytes to a [`Pod`] that cannot be wrong. Pure: no I/O, no clock.

mod model;
mod problem;

pub use k8s_openapi;
pub use model::*;
pub use problem::Problem;

/// The most that a manifest may have, bytes; at this size and above it is refused (R-FILE-12).
pub const MAX_MANIFEST: usize = 10 << 20;

/// What a manifest file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Its pods, in the file's order.
    pub pods: Vec<Pod>,
    /// What is accepted but doubtful or without effect.
    pub warnings: Vec<Problem>,
}

/// Decodes, defaults and validates a manifest for the node of that name. A file is taken as a whole: if anything in it is
/// wrong, nothing of it is used.
///
/// # Errors
/// Everything that is wrong, in the file's order.
pub fn decode(_bytes: &[u8], _node_name: &str) -> Result<Manifest, Vec<Problem>> {
    Err(Vec::new())
}

/// YAML as `kubectl -o yaml` prints it.
///
/// # Errors
/// `value` cannot be expressed, e.g. a map key that is not text.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, Problem> {
    serde_yaml::to_string(value).map_err(|error| Problem { message: error.to_string(), ..Problem::default() })
}
