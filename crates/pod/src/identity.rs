//! Who a pod is: its revision and UID (ADR 4).

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{PodUid, Revision};

/// Begins every hash, so that another scheme gives other hashes.
const SCHEME: &str = "stanchion/1";
/// Hashes are shown and kept as this many bytes in hexadecimal.
const LENGTH: usize = 16;

/// The hash of a user's document: what it says, not how it is written.
pub(crate) fn revision(document: &Value) -> Revision {
    let mut document = canonical(document);
    if let Some(document) = document.as_object_mut() {
        document.remove("status");
    }
    Revision::new(&hash(&["revision", &document.to_string()]))
}

/// Sorted keys (serde_json's maps are) without nulls: an explicit null is an absent field (R-DEF-4).
fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let present = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(key, value)| (key.clone(), canonical(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

/// Gives the pod its identity on this node (R-ID-2 to R-ID-9); its UID.
pub(crate) fn rewrite(pod: &mut Pod, revision: &Revision, node_name: &str) -> PodUid {
    let metadata = &mut pod.metadata;
    let name = metadata.name.take().unwrap_or_default();
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let uid = match metadata.uid.take().filter(|uid| !uid.is_empty()) {
        Some(uid) => PodUid::new(&uid),
        None => PodUid::new(&hash(&["uid", node_name, &namespace, &name, revision.as_str()])),
    };
    metadata.uid = Some(uid.as_str().to_owned());
    metadata.name = Some(format!("{name}-{node_name}"));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert("kubernetes.io/config.source".to_owned(), "file".to_owned());
    annotations.insert("kubernetes.io/config.hash".to_owned(), uid.as_str().to_owned());
    if let Some(spec) = &mut pod.spec {
        spec.node_name = Some(node_name.to_owned());
        let tolerations = spec.tolerations.get_or_insert_default();
        let evades = |it: &Toleration| it.key.is_none() && it.effect.as_deref() == Some("NoExecute");
        if !tolerations.iter().any(evades) {
            tolerations.push(Toleration {
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                ..Toleration::default()
            });
        }
    }
    uid
}

/// Each part is preceded by its length, so that no two lists of parts hash alike.
fn hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in std::iter::once(&SCHEME).chain(parts) {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(LENGTH).map(|byte| format!("{byte:02x}")).collect()
}
