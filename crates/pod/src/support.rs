//! Which fields this agent executes, which it refuses, and which have no effect on a node: one table, [`rows::ROWS`].

mod rows;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{Problem, problem::Problems};
use rows::ROWS;

/// What becomes of a field. Where it is not executed, that goes for everything below it too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Support {
    /// Done as it says. Fields below it have rows of their own.
    Executed,
    /// A map of which only these keys are executed; `*` stands for any end.
    Keys(&'static [&'static str]),
    /// Not done yet; accepted only if it says (in JSON) what happens anyway.
    Only(&'static [&'static str]),
    /// Accepted with a warning; why it means nothing here.
    NoEffect(&'static str),
    /// Accepted without a word, as it comes with every object that was exported from a cluster.
    Quiet(&'static str),
    /// Not accepted; why, and the way out.
    Refused(&'static str, &'static str),
}

use Support::{Executed, Keys, NoEffect, Only, Quiet, Refused};

static TABLE: LazyLock<HashMap<&'static str, Support>> = LazyLock::new(|| ROWS.iter().copied().collect());

/// Fields that are as others are, with those.
const ALIKE: [(&str, &str); 4] = [
    ("spec.initContainers[]", "spec.containers[]"),
    ("spec.containers[].lifecycle.preStop", "spec.containers[].lifecycle.postStart"),
    ("spec.containers[].readinessProbe", "spec.containers[].livenessProbe"),
    ("spec.containers[].startupProbe", "spec.containers[].livenessProbe"),
];

/// The row of a field, by path with `[]` for any index: its own, or that of the field that it is like.
fn row(path: &str) -> Option<Support> {
    TABLE.get(&*like(path)).copied()
}

/// The path of the field that has the row.
fn like(path: &str) -> Cow<'_, str> {
    let mut path = Cow::Borrowed(path);
    for (one, other) in ALIKE {
        // A whole name, not the beginning of one.
        if let Some(rest) = path.strip_prefix(one).filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            path = Cow::Owned(format!("{other}{rest}"));
        }
    }
    path
}

/// Refuses what is not done, and warns of what means nothing here.
pub(crate) fn check(document: Option<&Map<String, Value>>, problems: &mut Problems, warnings: &mut Problems) {
    if let Some(document) = document {
        Check { path: String::new(), generic: String::new(), problems, warnings }.fields(document);
    }
}

struct Check<'a> {
    /// Where in the document.
    path: String,
    /// The same without indexes.
    generic: String,
    problems: &'a mut Problems,
    warnings: &'a mut Problems,
}

impl Check<'_> {
    fn fields(&mut self, fields: &Map<String, Value>) {
        for (name, value) in fields {
            let lengths = (self.path.len(), self.generic.len());
            for path in [&mut self.path, &mut self.generic] {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            self.field(value);
            self.path.truncate(lengths.0);
            self.generic.truncate(lengths.1);
        }
    }

    fn field(&mut self, value: &Value) {
        if value.as_array().is_some_and(Vec::is_empty) {
            return;
        }
        match row(&self.generic) {
            Some(Executed) => self.below(value),
            Some(Keys(known)) => {
                for key in value.as_object().into_iter().flat_map(Map::keys).filter(|key| !is_among(key, known)) {
                    let field = format!("{}.{key}", self.path);
                    let message = format!("is not supported yet; only {} are", known.join(" and "));
                    self.problems.push(Problem { field, message, ..Problem::default() });
                }
            }
            Some(Only(allowed)) if !allowed.contains(&value.to_string().as_str()) => {
                let allowed = allowed.join(" or ");
                let message = format!("{value} is not supported yet; only {allowed} is, as if it were left out");
                self.problems.push(Problem { field: self.path.clone(), message, ..Problem::default() });
            }
            Some(NoEffect(_)) => {
                let message = "is accepted and has no effect on a lone node".to_owned();
                self.warnings.push(Problem { field: self.path.clone(), message, ..Problem::default() });
            }
            Some(Refused(why, way_out)) => {
                let message = format!("{why}; {way_out}");
                self.problems.push(Problem { field: self.path.clone(), message, ..Problem::default() });
            }
            Some(Only(_) | Quiet(_)) => {}
            // A test holds that every field has a row; should one be missing, nothing is done that nobody knows of.
            None => {
                let message = "is not supported".to_owned();
                self.problems.push(Problem { field: self.path.clone(), message, ..Problem::default() });
            }
        }
    }

    fn below(&mut self, value: &Value) {
        match value {
            Value::Object(fields) if !MAPS.contains(&self.generic.as_str()) => self.fields(fields),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                self.generic.push_str("[]");
                for (index, item) in items.iter().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    if let Value::Object(fields) = item {
                        self.fields(fields);
                    }
                    self.path.truncate(length);
                }
                self.generic.truncate(self.generic.len() - 2);
            }
            _ => {}
        }
    }
}

fn is_among(key: &str, known: &[&str]) -> bool {
    known.iter().any(|known| known.strip_suffix('*').map_or(*known == key, |begin| key.starts_with(begin)))
}

/// Executed fields with keys of the user's own.
const MAPS: [&str; 2] = ["metadata.annotations", "metadata.labels"];
