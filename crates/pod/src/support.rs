//! Support for fields: which ones this agent executes, refuses, or accepts without effect. One table, [`rows::ROWS`].

mod rows;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

use serde_json::{Map, Value};

use crate::{Problem, problem::Problems};
use rows::ROWS;

/// Support for a field. Unless the field is executed, it holds for everything below it too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Support {
    /// Executed as Kubernetes specifies it. Fields below it have rows of their own.
    Executed,
    /// Map of which only these keys are executed; `*` stands for any end.
    Keys(&'static [&'static str]),
    /// Not supported yet; accepted only with one of these values (JSON), which request what happens anyway.
    Only(&'static [&'static str]),
    /// Accepted with a warning; the reason why it has no effect.
    NoEffect(&'static str),
    /// Accepted without a warning, since every object that was exported from a cluster has it.
    Quiet(&'static str),
    /// Refused; the reason and the remedy.
    Refused(&'static str, &'static str),
}

use Support::{Executed, Keys, NoEffect, Only, Quiet, Refused};

static TABLE: LazyLock<HashMap<&'static str, Support>> = LazyLock::new(|| ROWS.iter().copied().collect());

/// Fields that share the rows of other fields, with those.
const ALIKE: [(&str, &str); 4] = [
    ("spec.initContainers[]", "spec.containers[]"),
    ("spec.containers[].lifecycle.preStop", "spec.containers[].lifecycle.postStart"),
    ("spec.containers[].readinessProbe", "spec.containers[].livenessProbe"),
    ("spec.containers[].startupProbe", "spec.containers[].livenessProbe"),
];

/// Returns the row of a field, by path with `[]` for any index: its own, or that of the field whose rows it shares.
fn row(path: &str) -> Option<Support> {
    TABLE.get(&*like(path)).copied()
}

/// Returns the path of the field that has the row.
fn like(path: &str) -> Cow<'_, str> {
    let mut path = Cow::Borrowed(path);
    for (one, other) in ALIKE {
        // It must be a whole name, not the beginning of one.
        if let Some(rest) = path.strip_prefix(one).filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            path = Cow::Owned(format!("{other}{rest}"));
        }
    }
    path
}

/// Refuses fields that are not supported, and warns about fields without effect.
pub(crate) fn check(document: Option<&Map<String, Value>>, problems: &mut Problems, warnings: &mut Problems) {
    if let Some(document) = document {
        Check { path: String::new(), generic: String::new(), problems, warnings }.fields(document);
    }
}

struct Check<'a> {
    /// Path in the document.
    path: String,
    /// Path with `[]` for any index.
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
            // A test checks that every field has a row; should one be missing, the field is refused.
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

/// Executed maps with keys of the user's own.
const MAPS: [&str; 2] = ["metadata.annotations", "metadata.labels"];
