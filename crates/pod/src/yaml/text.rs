//! Prepares the text of a YAML file for the parser, and refuses text that Kubernetes' library refuses.

use std::borrow::Cow;

use libyaml_safer::Event;

use super::{position, problem};
use crate::{Problem, node::At};

/// Removes byte order marks after `---`: Kubernetes' client reads each document as a file of its own.
pub(super) fn without_marks(text: &str) -> Cow<'_, str> {
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
pub(super) fn without_ends(text: &str) -> Cow<'_, str> {
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

/// Replaces colons that end a plain text before a flow indicator.
pub(super) fn with_colons_replaced(text: &str, stand_in: char) -> String {
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

/// Refuses `\/`, which only YAML 1.2 knows.
pub(super) fn check_escapes(text: &str, event: &Event) -> Result<(), Problem> {
    let offset = |index: u64| usize::try_from(index).unwrap_or(usize::MAX);
    let written = text.get(offset(event.start_mark.index)..offset(event.end_mark.index)).unwrap_or_default();
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        if rest[at + 1..].starts_with('/') {
            let message = "not valid YAML: while parsing a quoted scalar: found unknown escape character";
            return Err(problem(position(event.start_mark), message.to_owned()));
        }
        let escaped = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        rest = &rest[at + 1 + escaped..];
    }
    Ok(())
}

/// Returns whether a character may stand in a YAML file as it is.
pub(super) fn is_readable(char: char) -> bool {
    match char {
        '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' => true,
        '\u{a0}'.. => !matches!(char, '\u{fffe}' | '\u{ffff}'),
        _ => false,
    }
}

/// Refuses characters that Kubernetes' library refuses before it parses anything; the problem has their position.
pub(super) fn check_characters(text: &str) -> Result<(), Problem> {
    let Some((offset, char)) = text.char_indices().find(|(_, char)| !is_readable(*char)) else { return Ok(()) };
    let before = &text[..offset];
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let message = format!("not valid YAML: the character {char:?} is not allowed in YAML; write \"\\u….\" for it");
    Err(problem(At { line, column }, message))
}
