//! Splits a file into one document per pod or object, and converts documents to the wire type.

use std::borrow::Cow;

use k8s_openapi::api::core::v1 as wire;
use serde_json::Value;

use crate::{
    Origin, Problem,
    budget::{Budget, Share},
    json, limits,
    names::join,
    node::{Content, Node},
    object::ObjectKind,
    problem::Problems,
    schema::{self, Shape},
    shape,
    validate::quoted,
    yaml,
};

/// Document of a pod, or of an object that pods refer to.
#[derive(Debug)]
pub(crate) struct Document {
    /// Kind of the object; `None` for a pod.
    pub object: Option<ObjectKind>,
    /// Pod or object as the user wrote it.
    pub node: Node,
    /// `true` if the document is an item of a list.
    is_item: bool,
}

/// Document as the wire type.
#[derive(Debug)]
pub(crate) struct Typed {
    pub pod: wire::Pod,
    /// Fields with a value, without nulls and zeros; an object.
    pub fields: Value,
    /// Problems of unknown fields and duplicate keys.
    pub strict: Problems,
}

/// Decodes the file to text: UTF-8, or UTF-16 with a byte order mark.
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
        _ => Err(whole("the file has a UTF-16 byte order mark and is not UTF-16; save it as UTF-8".to_owned())),
    }
}

/// Parses the documents of pods and objects, in the file's order. A file must have at least one; a server may send an
/// empty list to say that it has none (R-HTTP-6).
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
        unfold(node, "", None, &mut documents)?;
    }
    if documents.is_empty() && origin == Origin::File {
        return Err(whole("the file holds no pod: its list is empty; remove the file if no pod is wanted".to_owned()));
    }
    Ok(documents)
}

/// Adds a pod or object to `documents`, or the items of a list one by one; refuses anything else. Items of a typed list
/// may omit their type. `path` is the path of `node` in a list.
fn unfold(node: Node, path: &str, implied: Option<&str>, documents: &mut Vec<Document>) -> Result<(), Vec<Problem>> {
    let refused = |node: &Node, problem: Problem| vec![placed(problem.cut(), node)];
    if !matches!(node.content, Content::Map(_)) {
        let message = "the document is not a Pod: it must begin with apiVersion: v1 and kind: Pod".to_owned();
        return Err(refused(&node, Problem { message, ..Problem::default() }));
    }
    let kind = node.get("kind").and_then(Node::text).or(implied).unwrap_or_default();
    let Some(implied) = list_of(kind) else {
        let object = ObjectKind::of(kind);
        if kind != "Pod" && object.is_none() {
            return Err(refused(&node, other_kind(kind)));
        }
        documents.push(Document { object, node, is_item: !path.is_empty() });
        return Ok(());
    };
    let items = join(path, "items");
    // Without `items` the list may be truncated rather than empty.
    let nothing = || {
        let message = "Required value: a list needs items; write [] for an empty list".to_owned();
        Problem { field: items.clone(), message, ..Problem::default() }
    };
    if !matches!(node.get("items"), Some(Node { content: Content::List(_), .. })) {
        return Err(refused(&node, nothing()));
    }
    let Content::Map(entries) = node.content else { return Ok(()) };
    let list = entries.into_iter().rfind(|entry| entry.key == "items").map(|entry| entry.value.content);
    let Some(Content::List(list)) = list else { return Ok(()) };
    for (index, item) in list.into_iter().enumerate() {
        unfold(item, &format!("{items}[{index}]"), implied, documents)?;
    }
    Ok(())
}

/// Returns the kind that items of a list may omit, if there is one; `None` if `kind` is not a list.
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
            "unsupported kind {}; a manifest is kind: Pod, or what pods refer to: ConfigMap, Secret or \
             PersistentVolumeClaim",
            quoted(other)
        ),
    };
    Problem { field: "kind".to_owned(), message, ..Problem::default() }
}

impl Document {
    /// Converts the document to the wire type, within its file's budget. Makes at most `max_problems` problems.
    ///
    /// # Errors
    /// Values do not fit their fields; unknown fields and duplicate keys are reported with them.
    pub fn typed(&self, max_problems: usize, budget: &mut Budget) -> Result<Typed, Problems> {
        let shape::Read { value: fields, strict, mut wrong } = self.read(max_problems, &mut budget.items);
        if !wrong.is_empty() {
            wrong.append(strict);
            wrong.sort();
            return Err(self.located(wrong));
        }
        let fields = Value::Object(fields);
        match serde::Deserialize::deserialize(&fields) {
            Ok(pod) => Ok(Typed { pod, fields, strict: self.located(strict) }),
            // Nothing should fail here any more; if something does, refuse the manifest rather than panic.
            Err(error) => {
                wrong.push(Problem { message: error.to_string(), ..Problem::default() });
                Err(self.located(wrong))
            }
        }
    }

    /// Checks the fields against the shape. A document larger than an API server accepts, or than its file's remaining
    /// memory, is only checked: nothing of it is kept.
    pub fn read(&self, max_problems: usize, left: &mut Share) -> shape::Read {
        let length = self.node.json_length();
        let mut read = shape::read(&self.node, self.shape(), max_problems, left, length <= limits::REQUEST);
        if length > limits::REQUEST {
            let most = limits::REQUEST;
            let message = format!("Request entity too large: limit is {most}; as JSON it has {length} bytes or more");
            read.wrong.push(self.placed(Problem { message, ..Problem::default() }));
        }
        read
    }

    /// Returns the approximate memory of the document, bytes.
    pub fn memory(&self) -> usize {
        shape::memory(&self.node, self.shape())
    }

    fn shape(&self) -> &'static Shape {
        match self.object {
            None => schema::pod(),
            Some(ObjectKind::ConfigMap) => schema::config_map(),
            Some(ObjectKind::Secret) => schema::secret(),
            Some(ObjectKind::PersistentVolumeClaim) => schema::claim(),
        }
    }

    /// Checks that `apiVersion` is `v1`.
    ///
    /// # Errors
    /// It is another version.
    pub fn check_version(&self, kind: &str, max_problems: usize) -> Result<(), Problems> {
        // An item of a PodList may omit its type.
        if self.node.get("apiVersion").map_or(!self.is_item, |version| version.text() != Some("v1")) {
            let mut problems = Problems::at_most(max_problems);
            problems.add(|| {
                let found = self.node.get("apiVersion").map(shape::shown).unwrap_or_default();
                let message = format!("Invalid value: {found}: a {kind} is of apiVersion v1");
                Problem { field: "apiVersion".to_owned(), message, ..Problem::default() }
            });
            return Err(self.located(problems));
        }
        Ok(())
    }

    /// Adds line and column to problems: of the field, or of the nearest value around it that the file has.
    pub fn located(&self, problems: Problems) -> Problems {
        problems.each(|problem| *problem = self.placed(std::mem::take(problem)))
    }

    fn placed(&self, problem: Problem) -> Problem {
        placed(problem, &self.node)
    }
}

/// Adds line and column to a problem that has none.
fn placed(problem: Problem, document: &Node) -> Problem {
    if problem.line.is_some() {
        return problem;
    }
    let at = document.locate(&problem.field);
    Problem { line: Some(at.line), column: Some(at.column), ..problem }
}

/// Removes the fields that only a server writes: a manifest says what is wanted; the agent writes the status.
pub(crate) fn forget_status(pod: &mut wire::Pod) {
    pod.status = None;
    pod.metadata.deletion_timestamp = None;
    pod.metadata.deletion_grace_period_seconds = None;
    pod.metadata.creation_timestamp = None;
    pod.metadata.resource_version = None;
    pod.metadata.managed_fields = None;
}

/// Makes the problem of a document as a whole.
fn whole(message: String) -> Vec<Problem> {
    vec![Problem { message, ..Problem::default() }]
}
