//! Values of a document with their positions.

use std::borrow::Cow;

/// Value with its position in the file.
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

/// JSON value. Numbers are kept as JSON text: whether they fit is decided when their field is known.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Key and its value. Of several entries with one key the last counts, as in Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// Key, borrowed from the schema if a field has this name: a large file repeats the names of fields many times.
    pub key: Cow<'static, str>,
    /// `true` if the key was text before it was converted to text.
    pub is_text: bool,
    pub at: At,
    /// Line of the entry with the same key before it, if the user wrote the key twice.
    pub repeats: Option<u32>,
    pub value: Node,
}

/// Size of a value with everything in it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Weight {
    /// Number of values.
    pub values: usize,
    /// Text, keys included, bytes.
    pub bytes: usize,
    /// Depth of nesting, itself included.
    pub depth: usize,
}

impl Weight {
    /// Adds the size of a value that is inside this one.
    fn count_size(&mut self, inner: Self) {
        self.values += inner.values;
        self.bytes += inner.bytes;
        self.depth = self.depth.max(inner.depth);
    }
}

impl Node {
    /// Returns the value of a key, if this is a mapping and has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries.iter().rfind(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Returns the text, if this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the size of this value with everything in it.
    pub fn weight(&self) -> Weight {
        let mut weight = Weight { values: 1, bytes: 0, depth: 0 };
        match &self.content {
            Content::Null | Content::Bool(_) => {}
            Content::Number(text) | Content::Text(text) => weight.bytes = text.len(),
            Content::List(items) => items.iter().for_each(|item| weight.count_size(item.weight())),
            Content::Map(entries) => {
                for entry in entries {
                    weight.bytes += entry.key.len();
                    weight.count_size(entry.value.weight());
                }
            }
        }
        weight.depth += 1;
        weight
    }

    /// Returns the length of its JSON, bytes; characters that JSON escapes count as themselves.
    pub fn json_length(&self) -> usize {
        let separated = |lengths: usize, count: usize| lengths + 2 + count.saturating_sub(1);
        match &self.content {
            Content::Null | Content::Bool(true) => 4,
            Content::Bool(false) => 5,
            Content::Number(text) => text.len(),
            Content::Text(text) => text.len() + 2,
            Content::List(items) => separated(items.iter().map(Node::json_length).sum(), items.len()),
            Content::Map(entries) => {
                let length = |entry: &Entry| entry.key.len() + 3 + entry.value.json_length();
                separated(entries.iter().map(length).sum(), entries.len())
            }
        }
    }

    /// Returns the position of the value at a path, or of the nearest value around it that the document has.
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
                    // Some of the API server's paths spell a field as Go does, e.g. `spec.HostPID`.
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

    /// Converts the value to JSON, without positions.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(bool) => Value::Bool(*bool),
            Content::Number(text) => number(text),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Content::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone().into_owned(), entry.value.to_json())).collect(),
            ),
        }
    }
}

/// Converts a number's text to a JSON number, or to text if it is too large for one.
pub(crate) fn number(text: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Number>(text)
        .map_or_else(|_| serde_json::Value::String(text.to_owned()), serde_json::Value::Number)
}

/// Marks duplicate keys of one mapping; returns whether there are any.
pub(crate) fn mark_repeated(entries: &mut [Entry]) -> bool {
    let key = |index: usize| (entries[index].is_text, &*entries[index].key);
    // After this stable sort, equal keys are neighbours in the order in which they are written.
    let mut order: Vec<_> = (0..entries.len()).collect();
    order.sort_by_key(|index| key(*index));
    let repeats: Vec<_> =
        order.windows(2).filter(|pair| key(pair[0]) == key(pair[1])).map(|it| [it[0], it[1]]).collect();
    for [before, index] in &repeats {
        entries[*index].repeats = Some(entries[*before].at.line);
    }
    !repeats.is_empty()
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// Splits a path such as `spec.containers[0].resources.limits[example.com/gpu]`.
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
