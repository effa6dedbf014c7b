//! From bytes to one JSON value per pod, and from there to Kubernetes' own type.

use k8s_openapi::api::core::v1 as wire;
use serde::Deserialize;
use serde_json::Value;

use crate::{Problem, locate, names};

/// One pod's document.
#[derive(Debug)]
pub(crate) struct Document {
    /// The pod as the user wrote it.
    pub value: Value,
    /// Where it stands.
    pub place: Place,
}

/// Where a document stands in its file: which YAML document, and the path in it when it is an item of a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    pub document: usize,
    pub prefix: String,
}

/// The file as text.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    if bytes.len() >= crate::MAX_MANIFEST {
        let mib = crate::MAX_MANIFEST >> 20;
        return Err(whole(format!("the manifest has {} bytes; it must be smaller than {mib} MiB", bytes.len())));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        let message = "the file is not UTF-8 text; save it as UTF-8".to_owned();
        vec![Problem { line: u32::try_from(line).ok(), message, ..Problem::default() }]
    })
}

/// The pods' documents, in the file's order.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, Vec<Problem>> {
    let values = match text.trim_start().starts_with('{') {
        true => vec![parsed_json(text)?],
        false => yaml(text)?,
    };
    let mut documents = Vec::new();
    for (index, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
        unfold(value, Place { document: index, prefix: String::new() }, &mut documents)?;
    }
    if documents.is_empty() {
        return Err(whole("the file holds no pod: it is empty or only comments".to_owned()));
    }
    Ok(documents)
}

fn parsed_json(text: &str) -> Result<Value, Vec<Problem>> {
    let value = serde_json::from_str(text).map_err(|error| {
        let at = |number: usize| u32::try_from(number).ok();
        let message = format!("not valid JSON: {}", strip_place(&error.to_string()));
        vec![Problem { line: at(error.line()), column: at(error.column()), message, ..Problem::default() }]
    })?;
    // JSON is YAML too; its own decoder would take the last of two.
    match locate::repeated(text) {
        Some(repeated) => Err(vec![repeated]),
        None => Ok(value),
    }
}

fn yaml(text: &str) -> Result<Vec<Value>, Vec<Problem>> {
    let mut values = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        // Reading into serde_yaml's own value first finds duplicate keys, which JSON's maps would merge silently.
        let value = serde_yaml::Value::deserialize(document)
            .and_then(merged)
            .map_err(|error| vec![yaml_problem(text, &error)])?;
        values.push(json(value).map_err(whole)?);
    }
    Ok(values)
}

/// Expands merge keys (`<<: *base`).
fn merged(mut value: serde_yaml::Value) -> Result<serde_yaml::Value, serde_yaml::Error> {
    value.apply_merge()?;
    Ok(value)
}

fn yaml_problem(text: &str, error: &serde_yaml::Error) -> Problem {
    let said = error.to_string();
    if said.contains("repetition limit exceeded") {
        let message = "its aliases (*name) stand for too many values; write the values out".to_owned();
        return Problem { message, ..Problem::default() };
    }
    // The decoder tells where the mapping begins, not where the key is repeated.
    if let Some(repeated) = said.contains("duplicate entry").then(|| locate::repeated(text)).flatten() {
        return repeated;
    }
    let location = error.location();
    let at = |number: Option<usize>| number.and_then(|number| u32::try_from(number).ok());
    Problem {
        line: at(location.as_ref().map(serde_yaml::Location::line)),
        column: at(location.as_ref().map(serde_yaml::Location::column)),
        field: String::new(),
        message: format!("not valid YAML: {}", strip_place(&said)),
    }
}

/// A decoder's message without the place that it repeats at its end.
fn strip_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

/// YAML as JSON; keys must be text, as they must in Kubernetes.
fn json(value: serde_yaml::Value) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(bool) => Value::Bool(bool),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => number.into(),
            (_, Some(number), _) => number.into(),
            (_, _, Some(number)) => serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number),
            _ => Value::Null,
        },
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let entry = |(key, value): (Yaml, Yaml)| match key {
                Yaml::String(key) => Ok((key, json(value)?)),
                Yaml::Number(key) => Ok((key.to_string(), json(value)?)),
                Yaml::Bool(key) => Ok((key.to_string(), json(value)?)),
                other => Err(format!("a key must be text, not {other:?}")),
            };
            Value::Object(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        Yaml::Tagged(tagged) => json(tagged.value)?,
    })
}

/// A pod is taken as it is, a list's items one by one, and anything else refused.
fn unfold(value: Value, place: Place, documents: &mut Vec<Document>) -> Result<(), Vec<Problem>> {
    let Some(object) = value.as_object() else {
        return Err(whole("the document is not a Pod: it must begin with apiVersion: v1 and kind: Pod".to_owned()));
    };
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    match kind {
        "Pod" => documents.push(Document { value, place }),
        "List" | "PodList" => {
            let items = object.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            for (index, mut item) in items.into_iter().enumerate() {
                if kind == "PodList" {
                    // Items of a typed list need not repeat their type.
                    if let Some(item) = item.as_object_mut() {
                        item.entry("kind").or_insert_with(|| "Pod".into());
                        item.entry("apiVersion").or_insert_with(|| "v1".into());
                    }
                }
                let prefix = format!("items[{index}]");
                unfold(item, Place { document: place.document, prefix }, documents)?;
            }
        }
        _ => return Err(vec![other_kind(kind)]),
    }
    Ok(())
}

fn other_kind(kind: &str) -> Problem {
    let message = match kind {
        "" => "required: a manifest begins with apiVersion: v1 and kind: Pod".to_owned(),
        "ConfigMap" | "Secret" | "PersistentVolumeClaim" => format!("{kind} is not supported yet; only kind: Pod is"),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" | "CronJob" | "ReplicationController" => {
            format!(
                "{kind} needs a controller, which a lone node does not have; write its pod template as a manifest of \
             kind: Pod (apiVersion: v1, metadata.name, and the template's spec)"
            )
        }
        other => format!("unsupported kind {other:?}; a static pod manifest is kind: Pod"),
    };
    Problem { field: "kind".to_owned(), message, ..Problem::default() }
}

/// The document as Kubernetes' own type, and its unknown fields.
pub(crate) fn typed(document: &Document) -> Result<(wire::Pod, Vec<Problem>), Vec<Problem>> {
    let value = &document.value;
    let mut problems = Vec::new();
    if value.get("apiVersion").and_then(Value::as_str) != Some("v1") {
        let found = value.get("apiVersion").map(ToString::to_string).unwrap_or_default();
        let message = format!("Invalid value: {found}: a Pod is of apiVersion v1");
        problems.push(Problem { field: "apiVersion".to_owned(), message, ..Problem::default() });
        return Err(problems);
    }
    let mut unknown = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(names::path_of(&path));
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let pod: Result<wire::Pod, _> = serde_ignored::deserialize(tracked, &mut note);
    problems.extend(unknown.into_iter().map(|path| names::unknown(&path)));
    match pod {
        Ok(pod) => Ok((pod, problems)),
        Err(error) => {
            let field = track.path().to_string();
            let field = if field == "." { String::new() } else { field };
            let value = names::at(value, &field).map(|value| format!("Invalid value: {value}: ")).unwrap_or_default();
            problems.push(Problem {
                field,
                message: format!("{value}{}", names::type_error(&error)),
                ..Problem::default()
            });
            Err(problems)
        }
    }
}

/// A manifest is a wish, not a report.
pub(crate) fn forget_status(pod: &mut wire::Pod, warnings: &mut Vec<Problem>) {
    let mut drop = |field: &str| {
        let message = "has no meaning in a manifest and is ignored".to_owned();
        warnings.push(Problem { field: field.to_owned(), message, ..Problem::default() });
    };
    if pod.status.take().is_some() {
        drop("status");
    }
    if pod.metadata.deletion_timestamp.take().is_some() {
        drop("metadata.deletionTimestamp");
    }
    pod.metadata.deletion_grace_period_seconds = None;
    pod.metadata.creation_timestamp = None;
    pod.metadata.resource_version = None;
    pod.metadata.managed_fields = None;
}

/// A problem of the document as a whole.
fn whole(message: String) -> Vec<Problem> {
    vec![Problem { message, ..Problem::default() }]
}
