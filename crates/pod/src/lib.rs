//! Decodes pod manifests: from bytes to a [`Pod`] that cannot be wrong. Pure: no I/O, no clock.
//!
//! # Layout
//! - [`decode`]: the entry point, in two steps. The first does what Kubernetes does ([`kubernetes`]): `yaml` or
//!   `json` turns bytes into `node`s, one `document` per pod; `shape` checks it against the `schema` of the
//!   wire type; `defaults`, `prepare` and `validate` are the API server's. The second is this node's: `support`
//!   says which fields are executed, refused or without effect, `identity` makes revision and UID, `build` makes
//!   the [`Pod`] (`lifecycle`: its restart rules, hooks and probes). `object` decodes the objects that pods refer
//!   to. A `budget` bounds the memory that the pods and objects of a file take together.
//! - `image`: image references. `quantity`: `500m`, `64Mi`. [`expand`]: `$(VAR)`. `names`: field paths, and
//!   similar field names.

mod base64;
mod budget;
mod build;
mod defaults;
mod document;
pub mod expand;
mod identity;
mod image;
mod json;
pub mod kubernetes;
mod lifecycle;
mod limits;
mod model;
mod names;
mod node;
mod object;
mod prepare;
mod problem;
mod quantity;
mod schema;
mod shape;
mod support;
mod validate;
mod yaml;

pub use image::image_fault;
pub use k8s_openapi;
pub use lifecycle::*;
pub use model::*;
pub use object::{ConfigMap, Credential, Object, ObjectKey, ObjectKind, Objects, Secret, credentials_in};
pub use problem::Problem;

use budget::Budget;
use document::Document;
use kubernetes::Gates;
use problem::Problems;

/// Size limit of a manifest, bytes: one of this size or more is refused (R-FILE-12).
pub const MAX_MANIFEST: usize = limits::MANIFEST;

/// Content of a manifest file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Pods, in the file's order.
    pub pods: Vec<Pod>,
    /// Objects that pods refer to, in the file's order.
    pub objects: Vec<(ObjectKey, Object)>,
    /// Warnings about fields that are accepted but doubtful or without effect.
    pub warnings: Vec<Problem>,
}

/// Decodes, defaults and validates a manifest file for the node `node_name`. A file is used as a whole: if anything in
/// it is wrong, nothing of it is used.
///
/// # Errors
/// All problems, document by document.
pub fn decode(bytes: &[u8], node_name: &str) -> Result<Manifest, Vec<Problem>> {
    decode_from(Origin::File, bytes, node_name)
}

/// Decodes a manifest of any origin, as [`decode`] does; its pods record their origin.
///
/// # Errors
/// All problems, document by document.
pub fn decode_from(origin: Origin, bytes: &[u8], node_name: &str) -> Result<Manifest, Vec<Problem>> {
    let documents = document::documents(&document::text(bytes)?, origin)?;
    let mut manifest = Manifest::default();
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    if documents.len() > limits::DOCUMENTS {
        let (count, most) = (documents.len(), limits::DOCUMENTS);
        let message = format!("the file has {count} pods and objects; it may have at most {most}: split it");
        problems.push(Problem { message, ..Problem::default() });
    }
    // If the file is too large, no pod is kept; decoding goes on only to find the first pod that exceeds the budget.
    let fits = documents.iter().map(Document::memory).sum::<usize>() <= limits::ITEMS;
    let mut budget = Budget::default();
    for document in documents {
        // After a problem nothing of the file is used and nothing is kept, so each pod has the whole budget.
        if !problems.is_empty() {
            budget = Budget::default();
        }
        budget.begin();
        match decode_document(&document, origin, node_name, problems.remaining(), &mut budget) {
            Ok(_) if !problems.is_empty() || !fits => {}
            Ok((Decoded::Pod(pod), doubts)) => {
                warnings.append(doubts);
                manifest.pods.push(*pod);
            }
            Ok((Decoded::Object(key, object), doubts)) => {
                warnings.append(doubts);
                manifest.objects.push((key, object));
            }
            Err(wrong) => {
                problems.append(wrong);
                manifest = Manifest::default();
            }
        }
    }
    manifest.warnings = warnings.into_list("warnings");
    if problems.is_empty() { Ok(manifest) } else { Err(problems.into_list("problems")) }
}

/// Decoded document.
enum Decoded {
    Pod(Box<Pod>),
    Object(ObjectKey, Object),
}

/// Decodes the pod or object of a document, within its file's budget; returns it with its warnings. Makes at most
/// `max_problems` problems.
fn decode_document(
    document: &Document,
    origin: Origin,
    node_name: &str,
    max_problems: usize,
    budget: &mut Budget,
) -> Result<(Decoded, Problems), Problems> {
    match document.object {
        Some(kind) => {
            let decoded = object::decode(document, kind, max_problems, &mut budget.items);
            decoded.map(|(key, object, warnings)| (Decoded::Object(key, object), warnings))
        }
        None => decode_pod(document, origin, node_name, max_problems, budget)
            .map(|(pod, warnings)| (Decoded::Pod(Box::new(pod)), document.located(warnings)))
            .map_err(|problems| document.located(problems)),
    }
}

fn decode_pod(
    document: &Document,
    origin: Origin,
    node_name: &str,
    max_problems: usize,
    budget: &mut Budget,
) -> Result<(Pod, Problems), Problems> {
    let mut warnings = Problems::default();
    document.check_version("Pod", max_problems)?;
    let document::Typed { pod: mut wire, fields, strict: mut problems } = document.typed(max_problems, budget)?;
    support::check(fields.as_object(), &mut problems, &mut warnings);
    let revision = identity::revision(document.node.to_json());
    document::forget_status(&mut wire);
    defaults::fill(&mut wire);
    problems.append(kubernetes::objections(&wire, &Gates::default(), problems.remaining()));
    identity::check(&wire, node_name, &mut problems);
    prepare::tidy(&mut wire);
    problems.extend(wire.spec.iter().flat_map(build::volume::objections));
    problems.extend(build::growth::objection(&wire, &mut budget.referred));
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(wire.spec.iter().flat_map(build::lifecycle::doubts));
    let uid = identity::rewrite(&mut wire, &revision, origin, node_name);
    build::pod(wire, uid, revision, origin).map(|pod| (pod, warnings)).map_err(|wrong| {
        problems.extend(wrong);
        problems
    })
}

/// Makes a pod from its own [`Pod::wire`], e.g. a recorded one. Does not validate it: it was validated when it was
/// decoded.
///
/// # Errors
/// Another version of this program made it, and this version understands something in it differently.
pub fn restore(wire: k8s_openapi::api::core::v1::Pod, revision: Revision, origin: Origin) -> Result<Pod, Vec<Problem>> {
    let uid = PodUid::new(wire.metadata.uid.as_deref().unwrap_or_default());
    build::pod(wire, uid, revision, origin)
}

/// Parses a YAML or JSON document that is not a manifest, e.g. a file of a kubelet's settings.
///
/// # Errors
/// The text is neither, or has more than one document.
pub fn from_yaml(text: &str) -> Result<serde_json::Value, Problem> {
    let mut documents = yaml::documents(text)?.into_iter();
    let first = documents.next().map_or(serde_json::Value::Null, |document| document.to_json());
    match documents.next() {
        None => Ok(first),
        Some(_) => Err(Problem { message: "it has more than one document".to_owned(), ..Problem::default() }),
    }
}

/// Writes YAML as `kubectl -o yaml` prints it, with quotes around text that YAML 1.1 reads as something else (`yes`,
/// `1_000`).
///
/// # Errors
/// `value` cannot be expressed, e.g. a map key that is not text.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, Problem> {
    yaml::write(value).map_err(|error| Problem { message: error.to_string(), ..Problem::default() })
}
