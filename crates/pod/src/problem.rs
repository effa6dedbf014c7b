//! Problems of a manifest: messages that name the place and the remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;

/// Fault or doubtful thing in a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Path of the field, e.g. `spec.containers[0].image`; empty for the document as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Message: the fault, what was expected and the remedy, e.g. `unknown field "imge", did you mean "image"?`.
    pub message: String,
}

impl fmt::Display for Problem {
    /// Writes `line 7, column 5: spec.containers[0].imge: unknown field, did you mean "image"?`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}")?;
            if let Some(column) = self.column {
                write!(f, ", column {column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    /// Cuts its path and message: they may quote text of other programs.
    pub(crate) fn cut(mut self) -> Self {
        cut(&mut self.field, limits::FIELD);
        cut(&mut self.message, limits::MESSAGE);
        self
    }
}

/// Cuts the middle out of a text of more than `most` bytes, and puts the number of bytes left out there. The end stays:
/// in a message the value comes before what is wrong with it.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        let is_border = |at: &usize| text.is_char_boundary(*at);
        let start = (0..=most / 2).rev().find(is_border).unwrap_or(0);
        let end = (text.len() - most / 2..text.len()).find(is_border).unwrap_or(text.len());
        text.replace_range(start..end, &format!("… ({} bytes left out) …", end - start));
    }
}

/// Problems in the order in which they are found; beyond a limit they are only counted.
#[derive(Debug)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    more: usize,
    most: usize,
}

impl Default for Problems {
    fn default() -> Self {
        Self::at_most(limits::PROBLEMS)
    }
}

impl Problems {
    /// Makes a list that keeps `most` problems, and counts those after them without making them.
    pub fn at_most(most: usize) -> Self {
        Self { list: Vec::new(), more: 0, most }
    }

    /// Returns the number of problems that it can still keep.
    pub fn remaining(&self) -> usize {
        self.most.saturating_sub(self.list.len())
    }

    /// Returns the number of problems found, kept or not.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// Returns whether no problem was found.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Adds a problem, and makes it only if the list can still keep it.
    pub fn add(&mut self, make: impl FnOnce() -> Problem) {
        match self.remaining() {
            0 => self.more += 1,
            _ => self.list.push(make().cut()),
        }
    }

    /// Adds a problem that exists already.
    pub fn push(&mut self, problem: Problem) {
        self.add(|| problem);
    }

    /// Adds all `problems`.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }

    /// Adds the problems of another list, kept and counted.
    pub fn append(&mut self, other: Self) {
        self.extend(other.list);
        self.more += other.more;
    }

    /// Changes every problem that is kept.
    pub fn each(mut self, change: impl FnMut(&mut Problem)) -> Self {
        self.list.iter_mut().for_each(change);
        self
    }

    /// Sorts the kept problems by line and column.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|problem| (problem.line, problem.column));
    }

    /// Returns the kept problems; a last one says how many more there are. `what` names them in the plural.
    pub fn into_list(mut self, what: &str) -> Vec<Problem> {
        if self.more > 0 {
            let message = format!("and {} more {what}; the first {} of a file are shown", self.more, self.list.len());
            self.list.push(Problem { message, ..Problem::default() });
        }
        self.list
    }
}
