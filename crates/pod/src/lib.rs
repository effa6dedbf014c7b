//! Pod manifests: from bytes to a [`Pod`] that cannot be wrong. Pure: no I/O, no clock.
//!
//! # Layout
//! - [`decode`]: the way in, in two steps. First what Kubernetes says ([`kubernetes`]): bytes → [`node`] by [`yaml`] or
//!   [`json`], one [`document`] per pod; [`shape`] holds it against the [`schema`] of the wire type; [`defaults`],
//!   [`prepare`] and [`validate`] are the API server's. Then what this node does: [`support`] says which fields are
//!   executed, refused or without effect, [`identity`] makes revision and UID, [`build`] the [`Pod`] ([`lifecycle`]: the part
//!   of it that says how containers live). What is no pod but referred to by pods: [`object`]. A [`budget`] bounds what the
//!   pods and objects of a file take together.
//! - [`image`]: image references. [`quantity`]: `500m`, `64Mi`. [`expand`]: `$(VAR)`. [`names`]: paths and neighbours.

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

/// The most that a manifest may have, bytes; at this size and above it is refused (R-FILE-12).
pub const MAX_MANIFEST: usize = limits::MANIFEST;

/// What a manifest file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Its pods, in the file's order.
    pub pods: Vec<Pod>,
    /// What pods refer to, in the file's order.
    pub objects: Vec<(ObjectKey, Object)>,
    /// What is accepted but doubtful or without effect.
    pub warnings: Vec<Problem>,
}

/// Decodes, defaults and validates a manifest file for the node of that name. It is taken as a whole: if anything in it is
/// wrong, nothing of it is used.
///
/// # Errors
/// Everything that is wrong, document by document.
pub fn decode(bytes: &[u8], node_name: &str) -> Result<Manifest, Vec<Problem>> {
    decode_from(Origin::File, bytes, node_name)
}

/// The same for a manifest of any origin: its pods bear the mark of it.
///
/// # Errors
/// Everything that is wrong, document by document.
pub fn decode_from(origin: Origin, bytes: &[u8], node_name: &str) -> Result<Manifest, Vec<Problem>> {
    let documents = document::documents(&document::text(bytes)?, origin)?;
    let mut manifest = Manifest::default();
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    if documents.len() > limits::DOCUMENTS {
        let (count, most) = (documents.len(), limits::DOCUMENTS);
        let message = format!("the file has {count} pods and objects; it may have at most {most}: split it");
        problems.push(Problem { message, ..Problem::default() });
    }
    // In a file that is too large no pod is kept while the first one is found that goes over.
    let fits = documents.iter().map(Document::memory).sum::<usize>() <= limits::ITEMS;
    let mut budget = Budget::default();
    for document in documents {
        // Nothing of a file is used in which something is wrong, so none of it is kept, and each pod has the whole budget.
        if !problems.is_empty() {
            budget = Budget::default();
        }
        budget.begin();
        match decode_document(&document, origin, node_name, problems.room(), &mut budget) {
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

/// What a document holds.
enum Decoded {
    Pod(Box<Pod>),
    Object(ObjectKey, Object),
}

/// Decodes the pod or object of a document, within what its file has left; what is doubtful in it. At most `room` problems are made.
fn decode_document(
    document: &Document,
    origin: Origin,
    node_name: &str,
    room: usize,
    budget: &mut Budget,
) -> Result<(Decoded, Problems), Problems> {
    match document.object {
        Some(kind) => {
            let decoded = object::decode(document, kind, room, &mut budget.items);
            decoded.map(|(key, object, warnings)| (Decoded::Object(key, object), warnings))
        }
        None => decode_pod(document, origin, node_name, room, budget)
            .map(|(pod, warnings)| (Decoded::Pod(Box::new(pod)), document.located(warnings)))
            .map_err(|problems| document.located(problems)),
    }
}

fn decode_pod(
    document: &Document,
    origin: Origin,
    node_name: &str,
    room: usize,
    budget: &mut Budget,
) -> Result<(Pod, Problems), Problems> {
    let mut warnings = Problems::default();
    document.check_version("Pod", room)?;
    let document::Typed { pod: mut wire, fields, strict: mut problems } = document.typed(room, budget)?;
    support::check(fields.as_object(), &mut problems, &mut warnings);
    let revision = identity::revision(document.node.to_json());
    document::forget_status(&mut wire);
    defaults::fill(&mut wire);
    problems.append(kubernetes::objections(&wire, &Gates::default(), problems.room()));
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

/// Makes a pod of its own [`Pod::wire`], e.g. one that was written down: it was checked when it was decoded.
///
/// # Errors
/// It is of another version of this program, which takes something in it otherwise.
pub fn restore(wire: k8s_openapi::api::core::v1::Pod, revision: Revision, origin: Origin) -> Result<Pod, Vec<Problem>> {
    let uid = PodUid::new(wire.metadata.uid.as_deref().unwrap_or_default());
    build::pod(wire, uid, revision, origin)
}

/// A document of YAML or JSON that is no manifest, e.g. a file of a kubelet's settings.
///
/// # Errors
/// It is neither, or more than one.
pub fn from_yaml(text: &str) -> Result<serde_json::Value, Problem> {
    let mut documents = yaml::documents(text)?.into_iter();
    let first = documents.next().map_or(serde_json::Value::Null, |document| document.to_json());
    match documents.next() {
        None => Ok(first),
        Some(_) => Err(Problem { message: "it has more than one document".to_owned(), ..Problem::default() }),
    }
}

/// YAML as `kubectl -o yaml` prints it: texts that YAML 1.1 takes for something else (`yes`, `1_000`) are in quotes.
///
/// # Errors
/// `value` cannot be expressed, e.g. a map key that is not text.
pub fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, Problem> {
    yaml::write(value).map_err(|error| Problem { message: error.to_string(), ..Problem::default() })
}
