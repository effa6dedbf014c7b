//! From bytes to one document per pod, and from there to Kubernetes' own type.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as wire;
use serde_json::Value;

use crate::{
    Origin, Problem, json,
    names::join,
    node::{Content, Node},
    object::ObjectKind,
    schema, shape, yaml,
};

/// The document of a pod, or of an object that pods refer to.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it is, if it is no pod.
    pub object: Option<ObjectKind>,
    /// The pod or object as the user wrote it.
    pub node: Node,
    /// Its path in the file's document, when it is an item of a list.
    prefix: String,
}

/// A document in Kubernetes' own type.
#[derive(Debug)]
pub(crate) struct Typed {
    pub pod: wire::Pod,
    /// The fields that say something, nulls and zeros left out; an object.
    pub fields: Value,
    /// Unknown fields and keys written twice.
    pub strict: Vec<Problem>,
}

/// The file as text: UTF-8, or UTF-16 with a byte order mark.
pub(crate) fn text(bytes: &[u8]) -> Result<Cow<'_, str>, Vec<Problem>> {
    if bytes.len() >= crate::MAX_MANIFEST {
        let mib = crate::MAX_MANIFEST >> 20;
        return Err(whole(format!("the manifest has {} bytes; it must be smaller than {mib} MiB", bytes.len())));
    }
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        bytes => utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).map(Cow::Borrowed),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Vec<Problem>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        let message = "the file is not UTF-8 text; save it as UTF-8".to_owned();
        vec![Problem { line: u32::try_from(line).ok(), message, ..Problem::default() }]
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'_, str>, Vec<Problem>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(pairs.iter().map(|pair| unit(*pair))).collect::<Result<String, _>>();
    match text {
        Ok(text) if rest.is_empty() => Ok(Cow::Owned(text)),
        _ => Err(whole("the file begins as UTF-16 and is not; save it as UTF-8".to_owned())),
    }
}

/// The documents of pods and objects, in the file's order. A file holds some; a server may say that it has none, with a list of none
/// (R-HTTP-6).
pub(crate) fn documents(text: &str, origin: Origin) -> Result<Vec<Document>, Vec<Problem>> {
    let nodes = match text.trim_start().starts_with('{') {
        true => vec![json::document(text).map_err(|problem| vec![problem])?],
        false => yaml::documents(text).map_err(|problem| vec![problem])?,
    };
    let mut nodes = nodes.into_iter().filter(|node| node.content != Content::Null).peekable();
    if nodes.peek().is_none() {
        return Err(whole("the file holds no pod: it is empty or only comments".to_owned()));
    }
    let mut documents = Vec::new();
    for node in nodes {
        unfold(Document { object: None, node, prefix: String::new() }, None, &mut documents)?;
    }
    if documents.is_empty() && origin == Origin::File {
        return Err(whole("the file holds no pod: its list is empty; remove the file if no pod is wanted".to_owned()));
    }
    Ok(documents)
}

/// A pod or object is taken as it is, a list's items one by one, and anything else refused. Items of a typed list need not
/// repeat their type.
fn unfold(document: Document, implied: Option<&str>, documents: &mut Vec<Document>) -> Result<(), Vec<Problem>> {
    if !matches!(document.node.content, Content::Map(_)) {
        let message = "the document is not a Pod: it must begin with apiVersion: v1 and kind: Pod".to_owned();
        return Err(vec![document.placed(Problem { message, ..Problem::default() })]);
    }
    let kind = document.node.get("kind").and_then(Node::text).or(implied).unwrap_or_default().to_owned();
    let Some(implied) = list_of(&kind) else {
        let object = ObjectKind::of(&kind);
        if kind != "Pod" && object.is_none() {
            return Err(vec![document.placed(other_kind(&kind))]);
        }
        documents.push(Document { object, ..document });
        return Ok(());
    };
    // Without the word it may be the half of a list, and not one of nothing.
    let Some(Node { content: Content::List(items), .. }) = document.node.get("items") else {
        let field = join(&document.prefix, "items");
        let message = "Required value: a list's items; [] says that there are none".to_owned();
        return Err(vec![document.placed(Problem { field, message, ..Problem::default() })]);
    };
    for (index, item) in items.iter().enumerate() {
        let prefix = join(&document.prefix, &format!("items[{index}]"));
        unfold(Document { object: None, node: item.clone(), prefix }, implied, documents)?;
    }
    Ok(())
}

/// What a list's items are, if they need not say it; `None` for what is no list.
fn list_of(kind: &str) -> Option<Option<&'static str>> {
    match kind {
        "List" => Some(None),
        "PodList" => Some(Some("Pod")),
        _ => None,
    }
}

fn other_kind(kind: &str) -> Problem {
    let message = match kind {
        "" => "required: a manifest begins with apiVersion: v1 and kind: Pod".to_owned(),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "Job" | "CronJob" | "ReplicationController" => {
            format!(
                "{kind} needs a controller, which a lone node does not have; write its pod template as a manifest of \
             kind: Pod (apiVersion: v1, metadata.name, and the template's spec)"
            )
        }
        other => format!(
            "unsupported kind {other:?}; a manifest is kind: Pod, or what pods refer to: ConfigMap, Secret or \
             PersistentVolumeClaim"
        ),
    };
    Problem { field: "kind".to_owned(), message, ..Problem::default() }
}

impl Document {
    /// As Kubernetes' own type.
    ///
    /// # Errors
    /// It is of another version, or values do not fit their fields; unknown fields and repeated keys with it.
    pub fn typed(&self) -> Result<Typed, Vec<Problem>> {
        self.check_version("Pod")?;
        let shape::Read { value: fields, strict, mut wrong } = shape::read(&self.node, schema::pod());
        if !wrong.is_empty() {
            wrong.extend(strict);
            wrong.sort_by_key(|problem| (problem.line, problem.column));
            return Err(wrong.into_iter().map(|problem| self.placed(problem)).collect());
        }
        let fields = Value::Object(fields);
        match serde::Deserialize::deserialize(&fields) {
            Ok(pod) => Ok(Typed { pod, fields, strict: self.located(strict) }),
            // Nothing is left that could fail; if something does, the manifest is refused and not the agent's end.
            Err(error) => Err(vec![self.placed(Problem { message: error.to_string(), ..Problem::default() })]),
        }
    }

    /// Whether it is of the version that is known.
    ///
    /// # Errors
    /// It is of another.
    pub fn check_version(&self, kind: &str) -> Result<(), Vec<Problem>> {
        // An item of a PodList may leave its type out.
        if self.node.get("apiVersion").map_or(self.prefix.is_empty(), |version| version.text() != Some("v1")) {
            let found = self.node.get("apiVersion").map(|node| node.to_json().to_string()).unwrap_or_default();
            let message = format!("Invalid value: {found}: a {kind} is of apiVersion v1");
            return Err(vec![self.placed(Problem { field: "apiVersion".to_owned(), message, ..Problem::default() })]);
        }
        Ok(())
    }

    /// The problems with line and column: of the field, or of the nearest thing around it that the file has.
    pub fn located(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems.into_iter().map(|problem| self.placed(problem)).collect()
    }

    fn placed(&self, problem: Problem) -> Problem {
        if problem.line.is_some() {
            return problem;
        }
        let at = self.node.locate(&problem.field);
        Problem { line: Some(at.line), column: Some(at.column), ..problem }
    }
}

/// A manifest is a wish, not a report: what only a server writes is left out of what is shown.
pub(crate) fn forget_status(pod: &mut wire::Pod) {
    pod.status = None;
    pod.metadata.deletion_timestamp = None;
    pod.metadata.deletion_grace_period_seconds = None;
    pod.metadata.creation_timestamp = None;
    pod.metadata.resource_version = None;
    pod.metadata.managed_fields = None;
}

/// A problem of the document as a whole.
fn whole(message: String) -> Vec<Problem> {
    vec![Problem { message, ..Problem::default() }]
}
