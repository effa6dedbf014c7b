//! Reads YAML as Kubernetes does: scalars of version 1.1, anchors, merge keys.

mod scalar;
mod write;

use std::{borrow::Cow, collections::HashMap};

use libyaml_safer::{Event, EventData, Parser, ScalarStyle};

use crate::{
    Problem,
    limits::{ALIASED, DEPTH, EXPANDED, TAG_PREFIX, VALUES},
    node::{At, Content, Entry, Node, Weight, mark_repeated},
    schema,
};
use scalar::Scalar;
pub(crate) use write::write;

/// Parses the documents of a file, in its order. Empty ones are `Null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    readable(text)?;
    let text = &*without_marks(text);
    let text = &*without_ends(text);
    // The parser panics on a few texts that no sensible file has, e.g. `[!a, b]`.
    std::panic::catch_unwind(|| parsed(text)).unwrap_or_else(|_| {
        let message = "not valid YAML: its parser cannot read it; remove tags (!) and directives (%)".to_owned();
        Err(problem(At { line: 1, column: 1 }, message))
    })
}

/// Removes byte order marks after `---`: Kubernetes' client reads each document as a file of its own.
fn without_marks(text: &str) -> Cow<'_, str> {
    if !text.contains("\n\u{feff}") {
        return Cow::Borrowed(text);
    }
    let mut is_begun = false;
    let line = |line| {
        let begins = std::mem::replace(&mut is_begun, str::starts_with(line, "---"));
        line.strip_prefix('\u{feff}').filter(|_| begins).unwrap_or(line)
    };
    Cow::Owned(text.split_inclusive('\n').map(line).collect())
}

/// Removes the text from the end of a document (`...`) to the next `---`: Kubernetes' client ignores it, directives
/// included. Lines keep their numbers.
fn without_ends(text: &str) -> Cow<'_, str> {
    let is_end = |line: &str| {
        let after = line.strip_prefix("...").map(|rest| rest.chars().next());
        after.is_some_and(|after| {
            matches!(after, None | Some(' ' | '\t' | '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}'))
        })
    };
    if !text.split('\n').any(is_end) {
        return Cow::Borrowed(text);
    }
    let mut is_left_out = false;
    let line = |line| {
        is_left_out &= !str::starts_with(line, "---");
        let kept = if is_left_out { "\n" } else { line };
        is_left_out |= is_end(line);
        kept
    };
    Cow::Owned(text.split_inclusive('\n').map(line).collect())
}

/// Parses with the parser that Kubernetes' own library was made from: it accepts and refuses the same, except for some
/// texts that are prepared for it.
fn parsed(text: &str) -> Result<Vec<Node>, Problem> {
    let mut reader = Reader::default();
    let mut rest = Cow::Borrowed(text);
    loop {
        let Err(stop) = read(&rest, &mut reader) else { return Ok(reader.documents) };
        match stop {
            Stop::Wrong(problem) => return Err(problem),
            // In `[a:, b:]` the colon is part of the text for Kubernetes. Another character stands for it.
            Stop::Colon(problem) => {
                let stand_in = ('\u{e000}'..'\u{f8ff}').find(|char| !rest.contains(*char));
                let Some(stand_in) = stand_in.filter(|_| reader.colon.is_none()) else { return Err(problem) };
                reader = Reader { colon: Some(stand_in), ..Reader::default() };
                rest = Cow::Owned(with_colons_replaced(text, stand_in));
            }
        }
    }
}

/// Reason why the parser stops.
enum Stop {
    Wrong(Problem),
    /// Colon in a flow list or mapping that ends a text for the parser, but not for Kubernetes.
    Colon(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Wrong(problem)
    }
}

/// Replaces colons that end a plain text before a flow indicator.
fn with_colons_replaced(text: &str, stand_in: char) -> String {
    let mut replaced = String::with_capacity(text.len());
    // The character before, and the last one before that is not blank: `[a :, b]` has the text `a :`.
    let (mut before, mut solid) = (' ', ' ');
    // The first character of the last word: names of anchors and aliases, and tags, are not text.
    let mut first = ' ';
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let is_behind_blanks = matches!(before, ' ' | '\t');
        let continues_text = match is_behind_blanks {
            true => !solid.is_whitespace() && !matches!(solid, ':' | '?') && !matches!(first, '&' | '*' | '!'),
            false => !before.is_whitespace(),
        };
        let ends_text = continues_text && !matches!(solid, '"' | '\'' | ',' | '[' | ']' | '{' | '}');
        let is_replaced = char == ':' && ends_text && matches!(chars.peek(), Some(',' | '[' | ']' | '{' | '}' | '?'));
        replaced.push(if is_replaced { stand_in } else { char });
        if !matches!(char, ' ' | '\t') {
            if before.is_whitespace() || matches!(before, ',' | '[' | ']' | '{' | '}') {
                first = char;
            }
            solid = char;
        }
        before = char;
    }
    replaced
}

fn read(text: &str, reader: &mut Reader) -> Result<(), Stop> {
    // The parser needs a newline at the end; a block text that ends there must not get it.
    let is_open = !text.ends_with(['\n', '\r']);
    reader.open_end = is_open.then_some(text.len());
    let ended = if is_open { Cow::Owned(format!("{text}\n")) } else { Cow::Borrowed(text) };
    let mut bytes = ended.as_bytes();
    let mut parser = Parser::new();
    parser.set_input_string(&mut bytes);
    for event in parser {
        match event {
            Ok(event) => {
                if let EventData::Scalar { style: ScalarStyle::DoubleQuoted, .. } = event.data {
                    escapes(&ended, &event)?;
                }
                reader.event(event)?;
            }
            Err(error) => {
                let at = error.problem_mark().or(error.context_mark()).map_or_else(At::default, place);
                let context = error.context().map(|context| format!("{context}: ")).unwrap_or_default();
                let wrong = problem(at, format!("not valid YAML: {context}{}", error.problem()));
                return Err(match error.problem().contains("unexpected ':'") {
                    true => Stop::Colon(wrong),
                    false => Stop::Wrong(wrong),
                });
            }
        }
    }
    Ok(())
}

/// Refuses `\/`, which only YAML 1.2 knows.
fn escapes(text: &str, event: &Event) -> Result<(), Problem> {
    let offset = |index: u64| usize::try_from(index).unwrap_or(usize::MAX);
    let written = text.get(offset(event.start_mark.index)..offset(event.end_mark.index)).unwrap_or_default();
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        if rest[at + 1..].starts_with('/') {
            let message = "not valid YAML: while parsing a quoted scalar: found unknown escape character";
            return Err(problem(place(event.start_mark), message.to_owned()));
        }
        let escaped = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        rest = &rest[at + 1 + escaped..];
    }
    Ok(())
}

/// Returns whether a character may stand in a YAML file as it is.
fn is_readable(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' => true,
        '\u{a0}'.. => !matches!(char, '\u{fffe}' | '\u{ffff}'),
        _ => false,
    }
}

/// Refuses characters that Kubernetes' library refuses before it parses anything; the problem has their position.
fn readable(text: &str) -> Result<(), Problem> {
    let Some((offset, char)) = text.char_indices().find(|(_, char)| !is_readable(*char)) else { return Ok(()) };
    let before = &text[..offset];
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let message = format!("not valid YAML: the character {char:?} is not allowed in YAML; write \"\\u….\" for it");
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
    /// Character that stands for some colons in the text.
    colon: Option<char>,
    /// Length of the text, if it ends in the middle of a line.
    open_end: Option<usize>,
    documents: Vec<Node>,
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

/// Inserts the entries of merge keys (`<<: *base`) where the keys stand. Later entries count, as in Kubernetes.
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
        // Of several mappings, the first has precedence.
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
