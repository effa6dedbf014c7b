//! Reads YAML as Kubernetes does: scalars of version 1.1, anchors, merge keys.
//!
//! # Layout
//! - [`documents`]: the entry point. `text`: changes to the text before the parser reads it. `reader`: values from the
//!   parser's events. `scalar`: texts and numbers. `merge`: merge keys.
//! - [`write()`]: writes YAML.

mod merge;
mod reader;
mod scalar;
mod text;
mod write;

use std::borrow::Cow;

use libyaml_safer::{EventData, Parser, ScalarStyle};

use crate::{
    Problem,
    node::{At, Node},
};
use reader::Reader;
use text::{check_characters, check_escapes, with_colons_replaced, without_ends, without_marks};
pub(crate) use write::write;

/// Parses the documents of a file, in its order. Empty ones are `Null`.
pub(crate) fn documents(text: &str) -> Result<Vec<Node>, Problem> {
    check_characters(text)?;
    let text = &*without_marks(text);
    let text = &*without_ends(text);
    // The parser panics on a few texts that no sensible file has, e.g. `[!a, b]`.
    std::panic::catch_unwind(|| parsed(text)).unwrap_or_else(|_| {
        let message = "not valid YAML: its parser cannot read it; remove tags (!) and directives (%)".to_owned();
        Err(problem(At { line: 1, column: 1 }, message))
    })
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
                reader = Reader::with_colon(stand_in);
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
                    check_escapes(&ended, &event)?;
                }
                reader.event(event)?;
            }
            Err(error) => {
                let at = error.problem_mark().or(error.context_mark()).map_or_else(At::default, position);
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

fn position(mark: libyaml_safer::Mark) -> At {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).saturating_add(1);
    At { line: number(mark.line), column: number(mark.column) }
}

pub(crate) fn problem(at: At, message: String) -> Problem {
    Problem { line: Some(at.line), column: Some(at.column), field: String::new(), message }
}
