//! Pod manifests: from bytes to a [`Pod`] that cannot be wrong. Pure: no I/O, no clock.
//!
//! # Layout
//! - [`decode`]: the way in. [`document`]: bytes → one JSON value per pod. [`locate`]: where in the file a path stands.
//! - [`support`]: which fields are executed, refused, or without effect here.
//! - [`defaults`], [`validate`]: what the API server would fill in and object to. [`identity`]: revision and UID.
//! - [`build`]: the checked wire type → [`Pod`]. [`expand`]: `$(VAR)`. [`quantity`]: `500m`, `64Mi`.

mod build;
mod defaults;
mod document;
mod expand;
mod identity;
mod locate;
mod model;
mod names;
mod problem;
mod quantity;
mod support;
mod validate;

pub use k8s_openapi;
pub use model::*;
pub use problem::Problem;

use document::Document;
use locate::Located;

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
pub fn decode(bytes: &[u8], node_name: &str) -> Result<Manifest, Vec<Problem>> {
    let text = document::text(bytes)?;
    let documents = document::documents(text)?;
    let mut manifest = Manifest::default();
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for document in documents {
        match decode_document(&document, node_name) {
            Ok((pod, warnings)) => {
                found.extend(warnings.into_iter().map(|warning| (document.place.clone(), warning)));
                manifest.pods.push(pod);
            }
            Err(wrong) => problems.extend(wrong.into_iter().map(|problem| (document.place.clone(), problem))),
        }
    }
    if !problems.is_empty() {
        return Err(Located::new(text).locate(problems));
    }
    if !found.is_empty() {
        manifest.warnings = Located::new(text).locate(found);
    }
    Ok(manifest)
}

fn decode_document(document: &Document, node_name: &str) -> Result<(Pod, Vec<Problem>), Vec<Problem>> {
    let mut warnings = Vec::new();
    let (mut wire, unknown) = document::typed(document)?;
    let mut problems = unknown;
    support::check(&document.value, &mut problems, &mut warnings);
    let revision = identity::revision(&document.value);
    document::forget_status(&mut wire, &mut warnings);
    defaults::fill(&mut wire);
    validate::validate(&wire, node_name, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let uid = identity::rewrite(&mut wire, &revision, node_name);
    Ok((build::pod(wire, uid, revision)?, warnings))
}

/// YAML as `kubectl -o yaml` prints it.
///
/// # Errors
/// `value` cannot be expressed, e.g. a map key that is not text.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, Problem> {
    serde_yaml::to_string(value).map_err(|error| Problem { message: error.to_string(), ..Problem::default() })
}
