//! Identity of a pod: its revision and UID (ADR 4).

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Origin, PodUid, Problem, Revision, problem::Problems, validate::quoted};

/// First part of every hash, so that another scheme gives other hashes.
const SCHEME: &str = "stanchion/1";
/// Bytes of a hash that are kept; they are written in hexadecimal.
const LENGTH: usize = 16;
/// Longest name of a pod with the node's name at its end, bytes (R-ID-2).
const LONGEST_NAME: usize = 253;

/// Hashes a user's document: its content, not how it is written.
pub(crate) fn revision(mut document: Value) -> Revision {
    drop_nulls(&mut document);
    if let Some(document) = document.as_object_mut() {
        document.remove("status");
        let metadata = document.get_mut("metadata").and_then(Value::as_object_mut);
        if let Some(metadata) =
            metadata.filter(|it| it.get("uid").and_then(Value::as_str).is_some_and(|uid| !uid.is_empty()))
        {
            // A user who sets a pod's UID wants it kept when only labels or annotations change, which no container
            // needs to know (R-ID-6, R-CHG-2).
            metadata.remove("labels");
            metadata.remove("annotations");
        }
    }
    Revision::new(&hash(&["revision", &document.to_string()]))
}

/// Removes nulls: an explicit null is an absent field (R-DEF-4). The keys of serde_json's maps are sorted already.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Checks the rules that this node has for a pod's name and UID beyond those of Kubernetes.
pub(crate) fn check(pod: &Pod, node_name: &str, problems: &mut Problems) {
    let metadata = &pod.metadata;
    let mut add = |field: &str, message: String| {
        problems.push(Problem { field: field.to_owned(), message, ..Problem::default() });
    };
    match metadata.name.as_deref() {
        // Without `generateName`, validation has reported the missing name already.
        None if metadata.generate_name.is_some() => {
            add(
                "metadata.name",
                "Required value: name is needed for the pod; generateName does not help here".to_owned(),
            );
        }
        None => {}
        Some(name) => {
            let longest = LONGEST_NAME.saturating_sub(node_name.len() + 1);
            if name.len() > longest && name.len() <= LONGEST_NAME {
                let detail =
                    format!("with the node's name -{node_name} it must be no more than {LONGEST_NAME} characters");
                add("metadata.name", format!("Invalid value: {}: {detail}", quoted(name)));
            }
        }
    }
    let is_plain = |uid: &str| uid.len() <= 63 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let Some(uid) = metadata.uid.as_deref().filter(|uid| !is_plain(uid)) {
        let detail = "must consist of at most 63 alphanumeric characters or '-'";
        add("metadata.uid", format!("Invalid value: {}: {detail}", quoted(uid)));
    }
}

/// Sets the pod's identity on this node (R-ID-2 to R-ID-9); returns its UID.
pub(crate) fn rewrite(pod: &mut Pod, revision: &Revision, origin: Origin, node_name: &str) -> PodUid {
    let metadata = &mut pod.metadata;
    let name = metadata.name.take().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let uid = match metadata.uid.take().filter(|uid| !uid.is_empty()) {
        Some(uid) => PodUid::new(&uid),
        None => PodUid::new(&hash(&["uid", node_name, &namespace, &name, revision.as_str()])),
    };
    metadata.uid = Some(uid.as_str().to_owned());
    metadata.name = Some(format!("{name}-{node_name}"));
    // Removing its file ends a pod; a deletion timestamp in the file does not (R-REJ-8).
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert("kubernetes.io/config.source".to_owned(), origin.name().to_owned());
    annotations.insert("kubernetes.io/config.hash".to_owned(), uid.as_str().to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
        // A manifest from a URL gets no tolerations but its own (R-HTTP-8).
        if origin == Origin::File {
            tolerate_everything(spec.tolerations.get_or_insert_default());
        }
    }
    uid
}

/// Adds the toleration of every `NoExecute` taint without a time limit; it replaces the user's own with a time limit
/// (R-ID-9).
fn tolerate_everything(tolerations: &mut Vec<Toleration>) {
    let ours = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let is_ours = |it: &Toleration| Toleration { toleration_seconds: None, ..it.clone() } == ours;
    match tolerations.iter_mut().find(|it| is_ours(it)) {
        Some(theirs) => *theirs = ours,
        None => tolerations.push(ours),
    }
}

/// Hashes `parts`. Each is preceded by its length, so that no two lists of parts hash alike.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&SCHEME).chain(parts) {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hex::encode(&hasher.finalize()[..LENGTH])
}
