//! Parses JSON, with the position of every value. Strict: no comments, no trailing commas, one value.

use crate::{
    Problem,
    limits::{DEPTH, VALUES},
    node::{At, Content, Entry, Node, mark_repeated},
    schema,
    yaml::problem,
};

/// Parses the one value of a JSON file.
pub(crate) fn document(text: &str) -> Result<Node, Problem> {
    let mut reader = Reader { text, position: 0, line: 1, line_start: 0, continuations: 0, values: 0 };
    let node = reader.value(0)?;
    reader.skip_space();
    match reader.peek() {
        None => Ok(node),
        Some(_) => Err(reader.error("something follows the value")),
    }
}

struct Reader<'a> {
    text: &'a str,
    position: usize,
    line: u32,
    line_start: usize,
    /// UTF-8 continuation bytes in this line so far: columns count characters.
    continuations: usize,
    values: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn at(&self) -> At {
        let column = self.position - self.line_start - self.continuations + 1;
        At { line: self.line, column: u32::try_from(column).unwrap_or(u32::MAX) }
    }

    fn error(&self, what: &str) -> Problem {
        problem(self.at(), format!("not valid JSON: {what}"))
    }

    fn skip_space(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.position += 1;
            if byte == b'\n' {
                self.line = self.line.saturating_add(1);
                self.line_start = self.position;
                self.continuations = 0;
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        self.skip_space();
        if self.peek() != Some(byte) {
            return Err(self.error(&format!("expected {:?} here", char::from(byte))));
        }
        self.position += 1;
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        self.skip_space();
        let at = self.at();
        if depth >= DEPTH {
            return Err(problem(at, format!("it nests deeper than {DEPTH} levels")));
        }
        self.values += 1;
        if self.values > VALUES {
            return Err(problem(at, format!("it has more than {VALUES} values; split the file")));
        }
        let content = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Content::Text(self.string()?),
            Some(b'-' | b'0'..=b'9') => Content::Number(self.number()?),
            Some(b't') => self.word("true", Content::Bool(true))?,
            Some(b'f') => self.word("false", Content::Bool(false))?,
            Some(b'n') => self.word("null", Content::Null)?,
            Some(_) => return Err(self.error("expected a value here")),
            None => return Err(self.error("it ends too early")),
        };
        Ok(Node { at, content })
    }

    fn word(&mut self, word: &str, content: Content) -> Result<Content, Problem> {
        if !self.text[self.position..].starts_with(word) {
            return Err(self.error("expected a value here"));
        }
        self.position += word.len();
        Ok(content)
    }

    /// Returns whether another item follows; moves past the comma or the closing bracket.
    fn follows(&mut self, close: u8) -> Result<bool, Problem> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.position += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.position += 1;
                Ok(false)
            }
            _ => Err(self.error(&format!("expected ',' or {:?} here", char::from(close)))),
        }
    }

    fn closes(&mut self, close: u8) -> bool {
        self.skip_space();
        let closes = self.peek() == Some(close);
        self.position += usize::from(closes);
        closes
    }

    fn list(&mut self, depth: usize) -> Result<Content, Problem> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.closes(b']') {
            return Ok(Content::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if !self.follows(b']')? {
                items.shrink_to_fit();
                return Ok(Content::List(items));
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, Problem> {
        self.expect(b'{')?;
        let mut entries = Vec::new();
        if self.closes(b'}') {
            return Ok(Content::Map(entries));
        }
        loop {
            self.skip_space();
            let at = self.at();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in quotes here"));
            }
            let key = self.string()?;
            self.expect(b':')?;
            entries.push(Entry {
                key: schema::name(key),
                is_text: true,
                at,
                repeats: None,
                value: self.value(depth + 1)?,
            });
            if !self.follows(b'}')? {
                mark_repeated(&mut entries);
                entries.shrink_to_fit();
                return Ok(Content::Map(entries));
            }
        }
    }

    fn number(&mut self) -> Result<String, Problem> {
        let start = self.position;
        while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') = self.peek() {
            self.position += 1;
        }
        let text = &self.text[start..self.position];
        match serde_json::from_str::<serde_json::Number>(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => {
                self.position = start;
                Err(self.error("expected a number here"))
            }
        }
    }

    fn string(&mut self) -> Result<String, Problem> {
        let start = self.position;
        self.position += 1;
        let mut is_plain = true;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_plain = false;
                    self.position += 2;
                }
                Some(0..0x20) => return Err(self.error("a text has a control character; write it as \\n or \\u00…")),
                Some(byte) => {
                    self.continuations += usize::from(byte & 0xc0 == 0x80);
                    self.position += 1;
                }
                None => return Err(self.error("a text does not end")),
            }
        }
        self.position += 1;
        let text = &self.text[start..self.position];
        if is_plain {
            return Ok(text[1..text.len() - 1].to_owned());
        }
        unescaped(text).ok_or_else(|| self.error("a text has an escape that JSON does not know"))
    }
}

/// Unescapes a text in quotes; returns `None` if it has an escape that JSON does not know.
pub(crate) fn unescaped(text: &str) -> Option<String> {
    serde_json::from_str(text).ok().or_else(|| with_lone_surrogates(text))
}

/// Unescapes a text in quotes; half a surrogate pair becomes U+FFFD, as in Go.
fn with_lone_surrogates(text: &str) -> Option<String> {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    };
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let next = rest.get(6..).and_then(unit);
        let length = match (unit(rest), next) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.push('\u{fffd}');
                rest = &rest[6..];
                continue;
            }
            _ => 1 + rest[1..].chars().next()?.len_utf8(),
        };
        mended.push_str(rest.get(..length)?);
        rest = &rest[length..];
    }
    mended.push_str(rest);
    serde_json::from_str(&mended).ok()
}
