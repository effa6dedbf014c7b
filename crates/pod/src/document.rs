//! From bytes to one document per pod, and from there to Kubernetes' own type.

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

/// The document of a pod, or of an object that pods refer to.
#[derive(Debug)]
pub(crate) struct Document {
    /// What it is, if it is no pod.
    pub object: Option<ObjectKind>,
    /// The pod or object as the user wrote it.
    pub node: Node,
    /// Whether it is an item of a list.
    is_item: bool,
}

/// A document in Kubernetes' own type.
#[derive(Debug)]
pub(crate) struct Typed {
    pub pod: wire::Pod,
    /// The fields that say something, nulls and zeros left out; an object.
    pub fields: Value,
    /// Unknown fields and keys written twice.
    pub strict: Problems,
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
        unfold(node, "", None, &mut documents)?;
    }
    if documents.is_empty() && origin == Origin::File {
        return Err(whole("the file holds no pod: its list is empty; remove the file if no pod is wanted".to_owned()));
    }
    Ok(documents)
}

/// A pod or object is taken as it is, a list's items one by one, and anything else refused. Items of a typed list need not
/// repeat their type. `path` is that of the list's item.
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
    // Without the word it may be the half of a list, and not one of nothing.
    let nothing = || {
        let message = "Required value: a list's items; [] says that there are none".to_owned();
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
            "unsupported kind {}; a manifest is kind: Pod, or what pods refer to: ConfigMap, Secret or \
             PersistentVolumeClaim",
            quoted(other)
        ),
    };
    Problem { field: "kind".to_owned(), message, ..Problem::default() }
}

impl Document {
    /// Makes Kubernetes' own type of it, within what its file has left. At most `room` problems are made.
    ///
    /// # Errors
    /// Values do not fit their fields; unknown fields and repeated keys with it.
    pub fn typed(&self, room: usize, budget: &mut Budget) -> Result<Typed, Problems> {
        let shape::Read { value: fields, strict, mut wrong } = self.read(room, &mut budget.items);
        if !wrong.is_empty() {
            wrong.append(strict);
            wrong.sort();
            return Err(self.located(wrong));
        }
        let fields = Value::Object(fields);
        match serde::Deserialize::deserialize(&fields) {
            Ok(pod) => Ok(Typed { pod, fields, strict: self.located(strict) }),
            // Nothing is left that could fail; if something does, the manifest is refused and not the agent's end.
            Err(error) => {
                wrong.push(Problem { message: error.to_string(), ..Problem::default() });
                Err(self.located(wrong))
            }
        }
    }

    /// Holds its fields against a shape. One that is larger than an API server takes is only looked through for what is wrong,
    /// as is one that takes more memory than its file has left.
    pub fn read(&self, room: usize, left: &mut Share) -> shape::Read {
        let length = self.node.json_length();
        let mut read = shape::read(&self.node, self.shape(), room, left, length <= limits::REQUEST);
        if length > limits::REQUEST {
            let most = limits::REQUEST;
            let message = format!("Request entity too large: limit is {most}; as JSON it has {length} bytes or more");
            read.wrong.push(self.placed(Problem { message, ..Problem::default() }));
        }
        read
    }

    /// Returns about the memory that it takes, bytes.
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

    /// Whether it is of the version that is known.
    ///
    /// # Errors
    /// It is of another.
    pub fn check_version(&self, kind: &str, room: usize) -> Result<(), Problems> {
        // An item of a PodList may leave its type out.
        if self.node.get("apiVersion").map_or(!self.is_item, |version| version.text() != Some("v1")) {
            let mut problems = Problems::with_room(room);
            problems.add(|| {
                let found = self.node.get("apiVersion").map(shape::shown).unwrap_or_default();
                let message = format!("Invalid value: {found}: a {kind} is of apiVersion v1");
                Problem { field: "apiVersion".to_owned(), message, ..Problem::default() }
            });
            return Err(self.located(problems));
        }
        Ok(())
    }

    /// The problems with line and column: of the field, or of the nearest thing around it that the file has.
    pub fn located(&self, problems: Problems) -> Problems {
        problems.each(|problem| *problem = self.placed(std::mem::take(problem)))
    }

    fn placed(&self, problem: Problem) -> Problem {
        placed(problem, &self.node)
    }
}

/// A problem with its place in a document, if it has none.
fn placed(problem: Problem, document: &Node) -> Problem {
    if problem.line.is_some() {
        return problem;
    }
    let at = document.locate(&problem.field);
    Problem { line: Some(at.line), column: Some(at.column), ..problem }
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
