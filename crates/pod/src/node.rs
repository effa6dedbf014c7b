//! What a document says, and where each thing of it stands.

/// A value with its place in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub at: At,
    pub content: Content,
}

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct At {
    pub line: u32,
    pub column: u32,
}

/// A value as JSON knows it. Numbers are kept as JSON text: what fits where is decided when their field is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value. Of several with one key the last counts, as it does for Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub at: At,
    /// The line of the same key before it, if the user wrote it twice.
    pub repeats: Option<u32>,
    pub value: Node,
}

impl Node {
    /// The value of a key, if this is a mapping and has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().rfind(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Itself and everything in it.
    pub fn size(&self) -> usize {
        1 + match &self.content {
            Content::List(items) => items.iter().map(Node::size).sum::<usize>(),
            Content::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum::<usize>(),
            _ => 0,
        }
    }

    /// How deep it nests, itself included.
    pub fn depth(&self) -> usize {
        1 + match &self.content {
            Content::List(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Content::Map(entries) => entries.iter().map(|entry| entry.value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Where the thing at a path stands, or the nearest thing around it that the document has.
    pub fn locate(&self, path: &str) -> At {
        let mut found = self.at;
        let mut node = self;
        for step in steps(path) {
            match (&node.content, step) {
                (Content::List(items), Step::Index(index)) if index < items.len() => {
                    node = &items[index];
                    found = node.at;
                }
                (Content::Map(entries), Step::Name(name)) => {
                    // Some of the API server's paths spell a field in the Go manner, e.g. `spec.HostPID`.
                    let same = |entry: &&Entry| entry.key == name || entry.key.eq_ignore_ascii_case(name);
                    let Some(entry) = entries.iter().rfind(same) else { return found };
                    node = &entry.value;
                    found = entry.at;
                }
                _ => return found,
            }
        }
        found
    }

    /// As a JSON value, without its places.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(bool) => Value::Bool(*bool),
            Content::Number(text) => number(text),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect())
            }
        }
    }
}

/// A number's text as JSON's own number, or as text where it is too large for one.
pub(crate) fn number(text: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Number>(text)
        .map_or_else(|_| serde_json::Value::String(text.to_owned()), serde_json::Value::Number)
}

/// Marks keys that stand twice in one mapping; whether there are any.
pub(crate) fn mark_repeated(entries: &mut [Entry]) -> bool {
    let mut seen = std::collections::HashMap::with_capacity(entries.len());
    let mut repeats = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(line) = seen.insert(entry.key.as_str(), entry.at.line) {
            repeats.push((index, line));
        }
    }
    for (index, line) in &repeats {
        entries[*index].repeats = Some(*line);
    }
    !repeats.is_empty()
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// `spec.containers[0].resources.limits[example.com/gpu]` taken apart.
fn steps(path: &str) -> impl Iterator<Item = Step<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(inside) = rest.strip_prefix('[') {
            let (key, after) = inside.split_once(']')?;
            rest = after;
            return Some(key.parse().map_or(Step::Name(key), Step::Index));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        rest = after;
        (!name.is_empty()).then_some(Step::Name(name))
    })
}
