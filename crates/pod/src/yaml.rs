//! YAML as Kubernetes reads it: version 1.1's scalars, anchors, merge keys.

mod scalar;
mod write;

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::{
    Problem,
    node::{At, Content, Entry, Node, mark_repeated},
};
use scalar::Scalar;
pub(crate) use write::write;

/// How deep a document may nest. A Pod nests 20 deep.
pub(crate) const DEPTH: usize = 100;
/// How many values aliases may stand for, all together.
const ALIASED: usize = 100_000;

/// The documents of a file, in its order. Empty ones are `Null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    readable(text)?;
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => reader.event(event, &span)?,
            Err(error) => {
                let at = place(error.marker().line(), error.marker().col());
                return Err(problem(at, format!("not valid YAML: {}", error.info())));
            }
        }
    }
    Ok(reader.documents)
}

/// Whether a character may stand in a YAML file as it is.
fn is_readable(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' => true,
        '\u{a0}'.. => !matches!(char, '\u{feff}' | '\u{fffe}' | '\u{ffff}'),
        _ => false,
    }
}

/// Refuses what Kubernetes' library refuses before it parses anything, and the parser here would take.
fn readable(text: &str) -> Result<(), Problem> {
    if let Some((offset, char)) = text.char_indices().find(|(_, char)| !is_readable(*char)) {
        let before = &text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let message = format!("not valid YAML: the character {char:?} may not stand in a file; write \"\\u….\" for it");
        return Err(problem(place(line, column), message));
    }
    let mut prologue = text.lines().take_while(|line| line.is_empty() || line.starts_with(['#', '%']));
    match prologue.find_map(|line| line.strip_prefix("%YAML")).map(str::trim) {
        None | Some("1.1") => Ok(()),
        Some(other) => {
            let message = format!("not valid YAML: version {other} is not understood; leave %YAML out, or write 1.1");
            Err(problem(place(1, 0), message))
        }
    }
}

fn place(line: usize, column: usize) -> At {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    At { line: number(line), column: number(column).saturating_add(1) }
}

pub(crate) fn problem(at: At, message: String) -> Problem {
    Problem { line: Some(at.line), column: Some(at.column), field: String::new(), message }
}

#[derive(Default)]
struct Reader {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

/// A mapping or sequence that is being read.
struct Open {
    anchor: usize,
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
    is_merge: bool,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Problem> {
        let at = place(span.start.line(), span.start.col());
        match event {
            Event::Scalar(text, style, anchor, tag) => self.scalar(text, style, anchor, tag.as_deref(), at),
            Event::Alias(anchor) => self.alias(anchor, at),
            Event::SequenceStart(anchor, _) => self.begin(anchor, at, Kind::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.begin(anchor, at, Kind::Map { explicit: Vec::new(), merges: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, anchor: usize, at: At, kind: Kind) -> Result<(), Problem> {
        if self.expects_key() {
            return Err(problem(at, "a key must be text, not a mapping or a list".to_owned()));
        }
        if self.open.len() >= DEPTH {
            return Err(problem(at, format!("it nests deeper than {DEPTH} levels")));
        }
        self.open.push(Open { anchor, at, kind });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open { anchor, at, kind }) = self.open.pop() else { return Ok(()) };
        let content = match kind {
            Kind::List(items) => Content::List(items),
            Kind::Map { mut explicit, merges, .. } => {
                mark_repeated(&mut explicit);
                Content::Map(merged(explicit, merges)?)
            }
        };
        self.value(anchor, Node { at, content })
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        at: At,
    ) -> Result<(), Problem> {
        let is_plain = style == ScalarStyle::Plain;
        let scalar = scalar::resolve(&text, is_plain, tag).map_err(|said| problem(at, said))?;
        if self.expects_key() {
            let is_merge = scalar == Scalar::Merge;
            let key = match scalar {
                Scalar::Text | Scalar::Merge => text.into_owned(),
                Scalar::Bool(bool) => bool.to_string(),
                Scalar::Number(number) => number,
                Scalar::Null => return Err(problem(at, format!("a key must be text, not {text:?}; put it in quotes"))),
            };
            return self.key(anchor, Key { text: key, at, is_merge });
        }
        let content = match scalar {
            Scalar::Null => Content::Null,
            Scalar::Bool(bool) => Content::Bool(bool),
            Scalar::Number(number) if number.ends_with(|last: char| !last.is_ascii_digit()) => {
                return Err(problem(at, format!("{text} is no number that a field can hold; put it in quotes")));
            }
            Scalar::Number(number) => Content::Number(number),
            Scalar::Text | Scalar::Merge => Content::Text(text.into_owned()),
        };
        self.value(anchor, Node { at, content })
    }

    fn alias(&mut self, anchor: usize, at: At) -> Result<(), Problem> {
        let Some(known) = self.anchors.get(&anchor) else {
            let message = "an alias (*name) stands inside the value that it stands for".to_owned();
            return Err(problem(at, message));
        };
        self.aliased = self.aliased.saturating_add(known.size());
        if self.aliased > ALIASED {
            let message = "its aliases (*name) stand for too many values; write the values out".to_owned();
            return Err(problem(at, message));
        }
        if self.open.len() + known.depth() > DEPTH {
            return Err(problem(at, format!("it nests deeper than {DEPTH} levels")));
        }
        let content = known.content.clone();
        if self.expects_key() {
            let Content::Text(text) = content else {
                return Err(problem(at, "a key must be text".to_owned()));
            };
            return self.key(0, Key { text, at, is_merge: false });
        }
        self.value(0, Node { at, content })
    }

    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: Kind::Map { key: None, .. }, .. }))
    }

    fn key(&mut self, anchor: usize, read: Key) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchors.insert(anchor, Node { at: read.at, content: Content::Text(read.text.clone()) });
        }
        if let Some(Open { kind: Kind::Map { key, .. }, .. }) = self.open.last_mut() {
            *key = Some(read);
        }
        Ok(())
    }

    fn value(&mut self, anchor: usize, node: Node) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.documents.push(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { explicit, merges, key }) => match key.take() {
                Some(Key { is_merge: true, .. }) => merges.push((explicit.len(), node)),
                Some(Key { text, at, .. }) => explicit.push(Entry { key: text, at, repeats: None, value: node }),
                None => return Err(problem(node.at, "a key must be text, not a mapping or a list".to_owned())),
            },
        }
        Ok(())
    }
}

/// Puts what merge keys (`<<: *base`) bring where they stand. What comes later counts, as Kubernetes has it.
fn merged(explicit: Vec<Entry>, merges: Vec<(usize, Node)>) -> Result<Vec<Entry>, Problem> {
    if merges.is_empty() {
        return Ok(explicit);
    }
    let mut entries = Vec::with_capacity(explicit.len());
    let mut merges = merges.into_iter().peekable();
    for (index, entry) in explicit.into_iter().enumerate() {
        while let Some((_, node)) = merges.next_if(|(at, _)| *at <= index) {
            bring(node, &mut entries)?;
        }
        entries.push(entry);
    }
    for (_, node) in merges {
        bring(node, &mut entries)?;
    }
    Ok(entries)
}

fn bring(node: Node, entries: &mut Vec<Entry>) -> Result<(), Problem> {
    let unmarked = |entry: Entry| Entry { repeats: None, ..entry };
    match node.content {
        Content::Map(brought) => entries.extend(brought.into_iter().map(unmarked)),
        // Of several, the first has precedence.
        Content::List(items) => {
            for item in items.into_iter().rev() {
                match item.content {
                    Content::Map(brought) => entries.extend(brought.into_iter().map(unmarked)),
                    _ => return Err(problem(item.at, "a merge key (<<) takes mappings".to_owned())),
                }
            }
        }
        _ => return Err(problem(node.at, "a merge key (<<) takes a mapping or a list of mappings".to_owned())),
    }
    Ok(())
}
