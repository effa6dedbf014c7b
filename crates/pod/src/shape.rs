//! Checks a document against a shape: finds unknown fields and wrong types, and keeps the values for the wire type.

use serde_json::{Map, Value};

use crate::{
    Problem,
    budget::Share,
    limits,
    names::{join, unknown},
    node::{At, Content, Entry, Node, number},
    problem::Problems,
    quantity::Quantity,
    schema::{Field, Shape},
    validate::quoted,
};

/// Content of a document, in the form that the wire type takes.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// Fields that have a value for Kubernetes: no nulls, and no zeros that count as no value.
    pub value: Map<String, Value>,
    /// Unknown fields and duplicate keys: the API server's strict decoding refuses them.
    pub strict: Problems,
    /// Values that do not fit their field.
    pub wrong: Problems,
}

/// Reads a document as a structure of that shape, and takes its memory from what the file has left. Makes at most
/// `max_problems` problems of a kind, and a value only if `is_kept`.
pub(crate) fn read(document: &Node, shape: &Shape, max_problems: usize, left: &mut Share, is_kept: bool) -> Read {
    let (strict, wrong) = (Problems::at_most(max_problems), Problems::at_most(max_problems));
    let mut reader = Reader { path: String::new(), strict, wrong, is_kept, stored: 0 };
    reader.take(memory(document, shape), left, document.at);
    let value = match (&document.content, shape) {
        (Content::Map(entries), Shape::Struct(fields)) => reader.fields(entries, fields),
        _ => Map::new(),
    };
    Read { value, strict: reader.strict, wrong: reader.wrong }
}

struct Reader {
    path: String,
    strict: Problems,
    wrong: Problems,
    /// `true` if a value is made while reading.
    is_kept: bool,
    /// Lower bound of the size in etcd's form, bytes.
    stored: usize,
}

impl Reader {
    fn at<T>(&mut self, step: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        let result = then(self);
        self.path.truncate(length);
        result
    }

    fn fields(&mut self, entries: &[Entry], fields: &[Field]) -> Map<String, Value> {
        let mut object = Map::new();
        for entry in entries {
            self.repeated(entry);
            let Some(field) = fields.iter().find(|field| field.name == entry.key) else {
                let known = fields.iter().map(|field| field.name);
                let path = &self.path;
                self.strict.add(|| placed(unknown(&join(path, &entry.key), &entry.key, known), entry.at));
                self.all_repeated(&entry.value);
                continue;
            };
            let value = self.at(field.name, |reader| reader.value(&entry.value, &field.shape));
            match value.filter(|_| self.is_kept).filter(|value| field.has_presence || !is_zero(value, &field.shape)) {
                Some(value) => drop(object.insert(entry.key.clone().into_owned(), value)),
                // If the last of duplicate keys has a null or zero, the earlier value is removed.
                None => drop(object.remove(&*entry.key)),
            }
        }
        object
    }

    fn repeated(&mut self, entry: &Entry) {
        if let Some(first) = entry.repeats {
            let path = &self.path;
            self.strict.add(|| {
                let message = format!("duplicate key: it is already on line {first}; remove one");
                placed(Problem { field: join(path, &entry.key), message, ..Problem::default() }, entry.at)
            });
        }
    }

    /// Reports duplicate keys in a value of unknown shape.
    fn all_repeated(&mut self, node: &Node) {
        match &node.content {
            Content::Map(entries) => {
                for entry in entries {
                    self.repeated(entry);
                    self.at(&entry.key, |reader| reader.all_repeated(&entry.value));
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.at(&format!("[{index}]"), |reader| reader.all_repeated(item));
                }
            }
            _ => {}
        }
    }

    /// Adds the size of a value in etcd's form, before the value is made.
    fn count_size(&mut self, stored: usize, at: At) {
        self.stored = self.stored.saturating_add(stored);
        if self.stored > limits::STORED && std::mem::take(&mut self.is_kept) {
            let message = format!("etcdserver: request is too large: it may have at most {} bytes", limits::STORED);
            self.wrong.push(placed(Problem { message, ..Problem::default() }, at));
        }
    }

    /// Takes the memory of the document from what its file has left.
    fn take(&mut self, memory: usize, left: &mut Share, at: At) {
        if left.take(memory) || !std::mem::take(&mut self.is_kept) {
            return;
        }
        let mib = limits::ITEMS >> 20;
        let message = match left.fits_alone() {
            false => format!("Too many: the items of its lists take more than {mib} MiB of memory"),
            true => format!(
                "Too many: the items of its lists, with the pods and objects before it in the file, take more than {mib} MiB of \
                 memory; split the file"
            ),
        };
        self.wrong.push(placed(Problem { message, ..Problem::default() }, at));
    }

    /// Adds the problem of a value that does not fit its field.
    fn misfit(&mut self, at: At, message: impl FnOnce() -> String) {
        let field = &self.path;
        self.wrong.add(|| placed(Problem { field: field.clone(), message: message(), ..Problem::default() }, at));
    }

    /// Reads a value of that shape; returns `None` for null, and for a value that does not fit.
    fn value(&mut self, node: &Node, shape: &Shape) -> Option<Value> {
        self.count_size(stored(&node.content), node.at);
        match (&node.content, shape) {
            (Content::Null, _) => None,
            (_, Shape::Any) => {
                self.all_repeated(node);
                self.is_kept.then(|| node.to_json())
            }
            (Content::Map(entries), Shape::Struct(fields)) => Some(Value::Object(self.fields(entries, fields))),
            (Content::Map(entries), Shape::Map(inside)) => {
                let mut object = Map::new();
                for entry in entries {
                    self.repeated(entry);
                    self.count_size(entry.key.len(), entry.at);
                    let value = self.at(&entry.key, |reader| reader.item(&entry.value, inside));
                    if self.is_kept {
                        object.insert(entry.key.clone().into_owned(), value);
                    }
                }
                Some(Value::Object(object))
            }
            (Content::List(items), Shape::List(inside)) => {
                let mut list = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    let value = self.at(&format!("[{index}]"), |reader| reader.item(item, inside));
                    if self.is_kept {
                        list.push(value);
                    }
                }
                Some(Value::Array(list))
            }
            (Content::Text(_), Shape::Text | Shape::IntOrString) if !self.is_kept => None,
            (Content::Text(text), Shape::Text | Shape::IntOrString) => Some(Value::String(text.clone())),
            (Content::Bool(bool), Shape::Bool) => Some(Value::Bool(*bool)),
            (Content::Number(text), Shape::Int32 | Shape::IntOrString) if text.parse::<i32>().is_ok() => {
                Some(number(text))
            }
            (Content::Number(text), Shape::Int64) if text.parse::<i64>().is_ok() => Some(number(text)),
            (Content::Text(text), Shape::Time) if is_time(text) => Some(Value::String(text.clone())),
            (content, Shape::Quantity) => self.quantity(content, node.at),
            (content, shape) => {
                self.misfit(node.at, || mismatch(content, shape));
                None
            }
        }
    }

    /// Reads an item of a list or a value of a map: null is its zero there.
    fn item(&mut self, node: &Node, shape: &Shape) -> Value {
        self.value(node, shape).unwrap_or_else(|| match shape {
            Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Text => Value::String(String::new()),
            Shape::Bool => Value::Bool(false),
            Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
            Shape::Quantity => "0".into(),
            Shape::Time => "1970-01-01T00:00:00Z".into(),
            Shape::Any => Value::Null,
        })
    }

    fn quantity(&mut self, content: &Content, at: At) -> Option<Value> {
        let text = match content {
            Content::Text(text) | Content::Number(text) => text.trim(),
            _ => "",
        };
        match Quantity::parse(text) {
            Ok(quantity) => Some(Value::String(quantity.to_string())),
            Err(error) => {
                self.misfit(at, || format!("Invalid value: {}: {error}, such as 500m, 2, 64Mi or 1G", named(content)));
                None
            }
        }
    }
}

/// Returns the approximate memory of a document of that shape with the items of its lists and maps, bytes.
pub(crate) fn memory(document: &Node, shape: &Shape) -> usize {
    shape.size() + memory_of_items(document, shape)
}

fn memory_of_items(node: &Node, shape: &Shape) -> usize {
    match (&node.content, shape) {
        (Content::Map(entries), Shape::Struct(fields)) => {
            let field = |entry: &Entry| fields.iter().find(|field| field.name == entry.key);
            entries.iter().filter_map(|entry| Some(memory_of_items(&entry.value, &field(entry)?.shape))).sum()
        }
        (Content::Map(entries), Shape::Map(inside)) => {
            let size = Shape::Text.size() + inside.size();
            entries.iter().map(|entry| size + memory_of_items(&entry.value, inside)).sum()
        }
        (Content::List(items), Shape::List(inside)) => {
            let size = inside.size();
            items.iter().map(|item| size + memory_of_items(item, inside)).sum()
        }
        _ => 0,
    }
}

/// Returns the least that a value takes in etcd's form, bytes.
fn stored(content: &Content) -> usize {
    match content {
        Content::Null => 0,
        Content::Text(text) => text.len() + 2,
        Content::Bool(_) | Content::Number(_) | Content::List(_) | Content::Map(_) => 2,
    }
}

/// Formats a value for a message.
pub(crate) fn shown(node: &Node) -> String {
    named(&node.content)
}

fn placed(problem: Problem, at: At) -> Problem {
    Problem { line: Some(at.line), column: Some(at.column), ..problem }
}

fn is_zero(value: &Value, shape: &Shape) -> bool {
    match (value, shape) {
        (Value::String(text), Shape::Text) => text.is_empty(),
        (Value::Bool(bool), _) => !bool,
        (Value::Number(number), Shape::Int32 | Shape::Int64) => number.as_i64() == Some(0),
        (Value::Array(items), Shape::List(_)) => items.is_empty(),
        (Value::Object(entries), Shape::Map(_)) => entries.is_empty(),
        _ => false,
    }
}

/// Returns whether a text is a time in Kubernetes' format: RFC 3339, `T` and zone included.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.get(10) == Some(&b'T')
        && (text.ends_with('Z') || bytes.len() > 6 && matches!(bytes[bytes.len() - 6], b'+' | b'-'))
        && text.parse::<jiff::Timestamp>().is_ok()
}

/// Returns what is wrong with a value, with the remedy if quotes help.
fn mismatch(content: &Content, shape: &Shape) -> String {
    let found = match content {
        Content::Null => "null",
        Content::Bool(_) => "a boolean",
        Content::Number(_) => "a number",
        Content::Text(_) => "text",
        Content::List(_) => "a list",
        Content::Map(_) => "a mapping",
    };
    let (expected, way_out) = match shape {
        Shape::Struct(_) | Shape::Map(_) | Shape::Any => ("a mapping", ""),
        Shape::List(_) => ("a list", ""),
        Shape::Text if matches!(content, Content::Bool(_) | Content::Number(_)) => ("text", "; put it in quotes"),
        Shape::Text => ("text", ""),
        Shape::Bool => ("true or false", ""),
        Shape::Int32 => ("a whole number of 32 bits", ""),
        Shape::Int64 => ("a whole number of 64 bits", ""),
        Shape::IntOrString => ("a whole number of 32 bits, or text", ""),
        Shape::Time => ("a time such as 2024-01-02T03:04:05Z", ""),
        Shape::Quantity => ("a quantity", ""),
    };
    let is_odd = matches!(
        (content, shape),
        (Content::Number(_), Shape::Int32 | Shape::Int64 | Shape::IntOrString) | (Content::Text(_), Shape::Time)
    );
    let not = if is_odd { String::new() } else { format!(", not {found}") };
    format!("Invalid value: {}: must be {expected}{not}{way_out}", named(content))
}

fn named(content: &Content) -> String {
    match content {
        Content::Null => "null".to_owned(),
        Content::Bool(bool) => bool.to_string(),
        Content::Number(text) => text.clone(),
        Content::Text(text) => quoted(text),
        Content::List(_) => "[…]".to_owned(),
        Content::Map(_) => "{…}".to_owned(),
    }
}
