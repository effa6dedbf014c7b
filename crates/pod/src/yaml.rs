//! YAML as Kubernetes reads it: version 1.1's scalars, anchors, merge keys.

mod scalar;
mod write;

use std::{borrow::Cow, collections::HashMap};

use libyaml_safer::{Event, EventData, Parser, ScalarStyle};

use crate::{
    Problem,
    limits::{ALIASED, DEPTH, EXPANDED, TAG_PREFIX, VALUES},
    node::{At, Content, Entry, Node, Weight, mark_repeated},
};
use scalar::Scalar;
pub(crate) use write::write;

/// The documents of a file, in its order. Empty ones are `Null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    readable(text)?;
    // The parser has a few places that no sensible file leads to and that end in a panic, e.g. `[!a, b]`.
    std::panic::catch_unwind(|| parsed(text)).unwrap_or_else(|_| {
        let message = "not valid YAML: its parser cannot read it; do without tags (!) and directives (%)".to_owned();
        Err(problem(At { line: 1, column: 1 }, message))
    })
}

/// By the parser that Kubernetes' own library was made from: it takes and refuses the same.
fn parsed(text: &str) -> Result<Vec<Node>, Problem> {
    // It wants a line's end at the end; a block text that ends there must not get it.
    let is_open = !text.ends_with(['\n', '\r']);
    let mut reader = Reader { open_end: is_open.then_some(text.len()), ..Reader::default() };
    let ended = if is_open { Cow::Owned(format!("{text}\n")) } else { Cow::Borrowed(text) };
    let mut bytes = ended.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    for event in parser {
        match event {
            Ok(event) => reader.event(event)?,
            Err(error) => {
                let at = error.problem_mark().or(error.context_mark()).map_or_else(At::default, place);
                let context = error.context().map(|context| format!("{context}: ")).unwrap_or_default();
                return Err(problem(at, format!("not valid YAML: {context}{}", error.problem())));
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

/// Refuses what Kubernetes' library refuses before it parses anything, with its place.
fn readable(text: &str) -> Result<(), Problem> {
    let Some((offset, char)) = text.char_indices().find(|(_, char)| !is_readable(*char)) else { return Ok(()) };
    let before = &text[..offset];
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let message = format!("not valid YAML: the character {char:?} may not stand in a file; write \"\\u….\" for it");
    Err(problem(At { line, column }, message))
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

fn place(mark: libyaml_safer::Mark) -> At {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    At { line: number(mark.line), column: number(mark.column) }
}

pub(crate) fn problem(at: At, message: String) -> Problem {
    Problem { line: Some(at.line), column: Some(at.column), field: String::new(), message }
}

#[derive(Default)]
struct Reader {
    /// Where the text ends, if it does so in the middle of a line.
    open_end: Option<usize>,
    documents: Vec<Node>,
    open: Vec<Open>,
    /// What anchors stand for; nothing while it is being read.
    anchors: HashMap<String, Option<(Node, Weight)>>,
    /// All that the documents hold, what aliases stand for included.
    held: Weight,
    /// All that is kept for aliases.
    kept: Weight,
    /// Values that aliases stand for.
    aliased: usize,
}

/// A mapping or sequence that is being read.
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
    is_merge: bool,
}

impl Reader {
    fn event(&mut self, event: Event) -> Result<(), Problem> {
        let at = place(event.start_mark);
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
        self.hold(Weight { values: 1, ..Weight::default() }, at)?;
        self.value(anchor, Node { at, content })
    }

    /// Takes so much into the documents, before it is made.
    fn hold(&mut self, more: Weight, at: At) -> Result<(), Problem> {
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
        self.hold(Weight { values: usize::from(!self.expects_key()), bytes: text.len(), depth: 1 }, at)?;
        let is_plain = style == ScalarStyle::Plain;
        let scalar = scalar::resolve(&text, is_plain, tag).map_err(|said| problem(at, said))?;
        if self.expects_key() {
            let is_merge = scalar == Scalar::Merge;
            let key = match scalar {
                Scalar::Text | Scalar::Merge => text,
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
                // The value is not repeated: it may be a secret's, put into the file without quotes.
                return Err(problem(at, "this is no number that a field can hold; put it in quotes".to_owned()));
            }
            Scalar::Number(number) => Content::Number(number),
            Scalar::Text | Scalar::Merge => Content::Text(text),
        };
        self.value(anchor, Node { at, content })
    }

    fn alias(&mut self, anchor: &str, at: At) -> Result<(), Problem> {
        let weight = match self.anchors.get(anchor) {
            Some(Some((_, weight))) => *weight,
            Some(None) => {
                return Err(problem(at, "this alias (*name) stands inside the value that it stands for".to_owned()));
            }
            None => {
                // Nor is its name: a secret may begin with an asterisk.
                let message = "this alias (*name) stands for nothing: no &name is before it; put a text in quotes";
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
        self.hold(weight, at)?;
        let Some(Some((Node { content, .. }, _))) = self.anchors.get(anchor) else { return Ok(()) };
        let content = content.clone();
        if self.expects_key() {
            let Content::Text(text) = content else {
                return Err(problem(at, "a key must be text".to_owned()));
            };
            return self.key(None, Key { text, at, is_merge: false });
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
