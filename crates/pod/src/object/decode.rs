//! Decodes an object from its document.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ConfigMap, Object, ObjectKey, ObjectKind, Secret};
use crate::{
    Problem, base64, budget::Share, document::Document, limits::DATA, problem::Problems, shape::Read, validate,
};

/// Decodes the object of a document, within the memory that its file has left; returns it with its warnings. Makes at
/// most `max_problems` problems.
pub(crate) fn decode(
    document: &Document,
    kind: ObjectKind,
    max_problems: usize,
    left: &mut Share,
) -> Result<(ObjectKey, Object, Problems), Problems> {
    document.check_version(kind.name(), max_problems)?;
    let Read { value: fields, strict, mut wrong } = document.read(max_problems, left);
    wrong.append(strict);
    if kind == ObjectKind::Secret {
        wrong = wrong.each(hide_value);
    }
    if !wrong.is_empty() {
        return Err(document.located(wrong));
    }
    let mut problems = Problems::at_most(max_problems);
    let key = key(kind, fields.get("metadata"), &mut problems);
    let mut warnings = Problems::default();
    let object = match kind {
        ObjectKind::ConfigMap => config_map(&fields, &mut problems),
        ObjectKind::Secret => secret(&fields, &mut problems),
        ObjectKind::PersistentVolumeClaim => claim(&fields, &mut problems, &mut warnings),
    };
    if problems.is_empty() { Ok((key, object, document.located(warnings))) } else { Err(document.located(problems)) }
}

/// Removes the value from a problem of a Secret's data, which must not be shown (I10).
fn hide_value(problem: &mut Problem) {
    let is_data = problem.field.starts_with("data") || problem.field.starts_with("stringData");
    if is_data && !problem.message.starts_with("duplicate key") {
        problem.message = "Invalid value: must be text; put it in quotes".to_owned();
    }
}

fn key(kind: ObjectKind, metadata: Option<&Value>, problems: &mut Problems) -> ObjectKey {
    let text = |field: &str| metadata.and_then(|it| it.get(field)).and_then(Value::as_str).unwrap_or_default();
    let (name, namespace) = (text("name"), text("namespace"));
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    problems.append(validate::object_name(name, namespace));
    ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn config_map(fields: &Map<String, Value>, problems: &mut Problems) -> Object {
    let data = texts(fields, "data");
    let binary_data = bytes(fields, "binaryData", problems);
    problems.append(validate::object_keys("data", data.keys()));
    problems.append(validate::object_keys("binaryData", binary_data.keys()));
    for key in binary_data.keys().filter(|key| data.contains_key(*key)) {
        let message = format!("Invalid value: {}: duplicate of key present in data", validate::quoted(key));
        problems.push(Problem { field: format!("binaryData[{key}]"), message, ..Problem::default() });
    }
    let size = data.values().map(String::len).sum::<usize>() + binary_data.values().map(Vec::len).sum::<usize>();
    problems.extend(too_large("", size));
    Object::ConfigMap(ConfigMap { data, binary_data })
}

fn secret(fields: &Map<String, Value>, problems: &mut Problems) -> Object {
    let mut data = bytes(fields, "data", problems);
    data.extend(texts(fields, "stringData").into_iter().map(|(key, text)| (key, text.into_bytes())));
    problems.append(validate::object_keys("data", data.keys()));
    problems.extend(too_large("data", data.values().map(Vec::len).sum()));
    let kind = fields.get("type").and_then(Value::as_str).unwrap_or("Opaque").to_owned();
    for key in needed(&kind).iter().filter(|key| !data.contains_key(**key)) {
        let message = format!("Required value: a Secret of type {kind} has this key");
        problems.push(Problem { field: format!("data[{key}]"), message, ..Problem::default() });
    }
    Object::Secret(Secret { kind, data })
}

/// Returns the keys that a Secret of this type must have.
fn needed(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

/// Checks a PersistentVolumeClaim, which is a directory here. Refuses fields that would make it something else, and
/// warns about fields that have no effect on a directory.
fn claim(fields: &Map<String, Value>, problems: &mut Problems, warnings: &mut Problems) -> Object {
    let spec = fields.get("spec").and_then(Value::as_object);
    for (name, value) in spec.into_iter().flatten() {
        let field = format!("spec.{name}");
        match name.as_str() {
            "accessModes" => {}
            "volumeMode" if value == "Filesystem" => {}
            "resources" | "storageClassName" | "volumeAttributesClassName" => {
                let message = "has no effect on a lone node: the claim is a directory on the node's disk".to_owned();
                warnings.push(Problem { field, message, ..Problem::default() });
            }
            _ => {
                let message =
                    "is not supported: the claim is a directory on the node's disk, empty at first; remove it";
                problems.push(Problem { field, message: message.to_owned(), ..Problem::default() });
            }
        }
    }
    Object::PersistentVolumeClaim
}

fn texts(fields: &Map<String, Value>, field: &str) -> BTreeMap<String, String> {
    let entries = fields.get(field).and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

fn bytes(fields: &Map<String, Value>, field: &str, problems: &mut Problems) -> BTreeMap<String, Vec<u8>> {
    let mut decoded = BTreeMap::new();
    for (key, value) in fields.get(field).and_then(Value::as_object).into_iter().flatten() {
        match base64::bytes(value.as_str().unwrap_or_default()) {
            Some(bytes) => drop(decoded.insert(key.clone(), bytes)),
            None => {
                let message =
                    "Invalid value: must be base64; plain text goes into stringData of a Secret, or data of a \
                               ConfigMap"
                        .to_owned();
                problems.push(Problem { field: format!("{field}[{key}]"), message, ..Problem::default() });
            }
        }
    }
    decoded
}

fn too_large(field: &str, size: usize) -> Option<Problem> {
    let message = format!("Too long: may not be more than {DATA} bytes");
    (size > DATA).then(|| Problem { field: field.to_owned(), message, ..Problem::default() })
}
