//! Builds the values of a file from the parser's events.

use std::collections::HashMap;

use libyaml_safer::{Event, EventData, ScalarStyle};

use super::{
    merge::merged,
    position, problem,
    scalar::{self, Scalar},
};
use crate::{
    Problem,
    limits::{ALIASED, DEPTH, EXPANDED, TAG_PREFIX, VALUES},
    node::{At, Content, Entry, Node, Weight, mark_repeated},
    schema,
};

/// Builder of the values of a file.
#[derive(Default)]
pub(super) struct Reader {
    /// Character that stands for some colons in the text.
    pub colon: Option<char>,
    /// Length of the text, if it ends in the middle of a line.
    pub open_end: Option<usize>,
    pub documents: Vec<Node>,
    open: Vec<Open>,
    /// Values of anchors; `None` while a value is being read.
    anchors: HashMap<String, Option<(Node, Weight)>>,
    /// Size of the documents, values of aliases included.
    held: Weight,
    /// Size of all values kept for aliases.
    kept: Weight,
    /// Number of values that aliases stand for.
    aliased: usize,
}

/// Mapping or sequence that is being read.
struct Open {
    anchor: Option<String>,
    at: At,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { explicit: Vec<Entry>, merges: Vec<(usize, Node)>, key: Option<Key> },
}

struct Key {
    text: String,
    at: At,
    /// `true` if it was text before it was converted to text: 7 and "7" are two keys.
    is_text: bool,
    is_merge: bool,
}

impl Reader {
    /// Makes the builder for a text in which `stand_in` stands for some colons.
    pub fn with_colon(stand_in: char) -> Self {
        Self { colon: Some(stand_in), ..Self::default() }
    }

    /// Adds the next event of the parser.
    pub fn event(&mut self, event: Event) -> Result<(), Problem> {
        let at = position(event.start_mark);
        match event.data {
            EventData::DocumentStart { version_directive, tag_directives, .. } => {
                self.anchors.clear();
                if tag_directives.iter().any(|tag| tag.prefix.len() > TAG_PREFIX) {
                    let message =
                        format!("a %TAG directive has a prefix of more than {TAG_PREFIX} bytes; leave it out");
                    return Err(problem(at, message));
                }
                match version_directive.filter(|version| (version.major, version.minor) != (1, 1)) {
                    None => Ok(()),
                    Some(_) => {
                        let message = "not valid YAML: found incompatible YAML document; leave %YAML out, or write 1.1";
                        Err(problem(at, message.to_owned()))
                    }
                }
            }
            EventData::Scalar { anchor, tag, mut value, style, .. } => {
                if let Some(colon) = self.colon {
                    value = value.replace(colon, ":");
                }
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let is_beyond = |end: usize| u64::try_from(end).is_ok_and(|end| event.end_mark.index > end);
                if is_block && self.open_end.is_some_and(is_beyond) && value.ends_with('\n') {
                    value.pop();
                }
                self.scalar(value, style, anchor, tag.as_deref(), at)
            }
            EventData::Alias { anchor } => self.alias(&anchor, at),
            EventData::SequenceStart { anchor, .. } => self.begin(anchor, at, Kind::List(Vec::new())),
            EventData::MappingStart { anchor, .. } => {
                self.begin(anchor, at, Kind::Map { explicit: Vec::new(), merges: Vec::new(), key: None })
            }
            EventData::SequenceEnd | EventData::MappingEnd => self.end(),
            EventData::StreamStart { .. } | EventData::StreamEnd | EventData::DocumentEnd { .. } => Ok(()),
        }
    }

    fn begin(&mut self, anchor: Option<String>, at: At, kind: Kind) -> Result<(), Problem> {
        if self.expects_key() {
            return Err(problem(at, "a key must be text, not a mapping or a list".to_owned()));
        }
        if self.open.len() >= DEPTH {
            return Err(problem(at, format!("it nests deeper than {DEPTH} levels")));
        }
        if let Some(anchor) = &anchor {
            self.anchors.insert(anchor.clone(), None);
        }
        self.open.push(Open { anchor, at, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open { anchor, at, kind }) = self.open.pop() else { return Ok(()) };
        let content = match kind {
            Kind::List(mut items) => {
                items.shrink_to_fit();
                Content::List(items)
            }
            Kind::Map { mut explicit, merges, .. } => {
                mark_repeated(&mut explicit);
                let mut entries = merged(explicit, merges)?;
                entries.shrink_to_fit();
                Content::Map(entries)
            }
        };
        self.count_size(Weight { values: 1, ..Weight::default() }, at)?;
        self.value(anchor, Node { at, content })
    }

    /// Adds a size to the documents, before the value is made.
    fn count_size(&mut self, more: Weight, at: At) -> Result<(), Problem> {
        self.held.bytes = self.held.bytes.saturating_add(more.bytes);
        self.held.values = self.held.values.saturating_add(more.values);
        bounded(self.held, at)
    }

    /// Keeps a value for aliases.
    fn keep(&mut self, anchor: Option<String>, node: &Node) -> Result<(), Problem> {
        let Some(anchor) = anchor else { return Ok(()) };
        let weight = node.weight();
        self.kept.bytes = self.kept.bytes.saturating_add(weight.bytes);
        self.kept.values = self.kept.values.saturating_add(weight.values);
        bounded(self.kept, node.at)?;
        self.anchors.insert(anchor, Some((node.clone(), weight)));
        Ok(())
    }

    fn scalar(
        &mut self,
        text: String,
        style: ScalarStyle,
        anchor: Option<String>,
        tag: Option<&str>,
        at: At,
    ) -> Result<(), Problem> {
        self.count_size(Weight { values: usize::from(!self.expects_key()), bytes: text.len(), depth: 1 }, at)?;
        let is_plain = style == ScalarStyle::Plain;
        let scalar = scalar::resolve(&text, is_plain, tag).map_err(|said| problem(at, said))?;
        if self.expects_key() {
            let is_merge = scalar == Scalar::Merge;
            let is_text = matches!(scalar, Scalar::Text | Scalar::Binary(_) | Scalar::Merge);
            let key = match scalar {
                Scalar::Text | Scalar::Merge => text,
                Scalar::Binary(text) => text,
                Scalar::Bool(bool) => bool.to_string(),
                Scalar::Number(_) => scalar::number_as_key(&text).map_err(|said| problem(at, said))?,
                Scalar::Null => return Err(problem(at, "a key must be text, not null; put it in quotes".to_owned())),
            };
            return self.key(anchor, Key { text: key, at, is_text, is_merge });
        }
        let content = match scalar {
            Scalar::Null => Content::Null,
            Scalar::Bool(bool) => Content::Bool(bool),
            Scalar::Number(number) if number.ends_with(|last: char| !last.is_ascii_digit()) => {
                // The message does not repeat the value: it may be a secret, put into the file without quotes.
                return Err(problem(at, "no field can hold this number; put text in quotes".to_owned()));
            }
            Scalar::Number(number) => Content::Number(number),
            Scalar::Text | Scalar::Merge => Content::Text(text),
            Scalar::Binary(text) => Content::Text(text),
        };
        self.value(anchor, Node { at, content })
    }

    fn alias(&mut self, anchor: &str, at: At) -> Result<(), Problem> {
        let weight = match self.anchors.get(anchor) {
            Some(Some((_, weight))) => *weight,
            Some(None) => {
                return Err(problem(at, "this alias (*name) stands inside the value that it refers to".to_owned()));
            }
            None => {
                // The message does not repeat the name: a secret may begin with an asterisk.
                let message = "unknown alias (*name): no anchor (&name) comes before it; put text in quotes";
                return Err(problem(at, message.to_owned()));
            }
        };
        self.aliased = self.aliased.saturating_add(weight.values);
        if self.aliased > ALIASED {
            let message = format!("its aliases (*name) stand for more than {ALIASED} values; write the values out");
            return Err(problem(at, message));
        }
        if self.open.len() + weight.depth > DEPTH {
            return Err(problem(at, format!("it nests deeper than {DEPTH} levels")));
        }
        self.count_size(weight, at)?;
        let Some(Some((Node { content, .. }, _))) = self.anchors.get(anchor) else { return Ok(()) };
        let content = content.clone();
        if self.expects_key() {
            let Content::Text(text) = content else {
                return Err(problem(at, "a key must be text".to_owned()));
            };
            return self.key(None, Key { text, at, is_text: true, is_merge: false });
        }
        self.value(None, Node { at, content })
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, anchor: Option<String>, read: Key) -> Result<(), Problem> {
        if anchor.is_some() {
            self.keep(anchor, &Node { at: read.at, content: Content::Text(read.text.clone()) })?;
        }
        if let Some(Open { kind: Kind::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(read);
        }
        Ok(())
    }

    fn value(&mut self, anchor: Option<String>, node: Node) -> Result<(), Problem> {
        self.keep(anchor, &node)?;
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.documents.push(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { explicit, merges, key }) => match key.take() {
                Some(Key { is_merge: true, .. }) => merges.push((explicit.len(), node)),
                Some(Key { text, at, is_text, .. }) => {
                    explicit.push(Entry { key: schema::name(text), is_text, at, repeats: None, value: node });
                }
                None => return Err(problem(node.at, "a key must be text, not a mapping or a list".to_owned())),
            },
        }
        Ok(())
    }
}

fn bounded(weight: Weight, at: At) -> Result<(), Problem> {
    if weight.bytes > EXPANDED {
        let mib = EXPANDED >> 20;
        return Err(problem(at, format!("with its aliases (*name) written out it has more than {mib} MiB; use fewer")));
    }
    match weight.values > VALUES {
        true => Err(problem(at, format!("it has more than {VALUES} values; split the file"))),
        false => Ok(()),
    }
}
