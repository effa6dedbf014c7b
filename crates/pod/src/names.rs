//! Fields' names: paths, neighbours, and decoders' words.

use serde_json::Value;

use crate::{Problem, support};

/// `spec.containers[0].image` from a decoder's path.
pub(crate) fn path_of(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", path_of(parent)),
        Path::Map { parent, key } => join(&path_of(parent), key),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => path_of(parent),
    }
}

/// A path and a field below it.
pub(crate) fn join(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

/// An unknown field, with the nearest one that is known there.
pub(crate) fn unknown(path: &str) -> Problem {
    let (parent, field) = path.rsplit_once('.').unwrap_or(("", path));
    let known = support::fields_below(parent);
    let nearest = known.iter().max_by(|a, b| strsim::jaro_winkler(a, field).total_cmp(&strsim::jaro_winkler(b, field)));
    let message = match nearest.filter(|known| strsim::jaro_winkler(known, field) > 0.75) {
        Some(known) => format!("unknown field {field:?}, did you mean {known:?}?"),
        None => format!("unknown field {field:?}"),
    };
    Problem { field: path.to_owned(), message, ..Problem::default() }
}

/// The value at a path.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|step| !step.is_empty()).try_fold(value, |value, step| {
        let (name, indexes) = step.split_once('[').unwrap_or((step, ""));
        let value = if name.is_empty() { value } else { value.get(name)? };
        indexes
            .split('[')
            .filter(|index| !index.is_empty())
            .try_fold(value, |value, index| value.get(index.trim_end_matches(']').parse::<usize>().ok()?))
    })
}

/// What a decoder says of a wrong type, with the way out where quoting helps.
pub(crate) fn type_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("invalid type: ").unwrap_or(&text);
    match text.split_once(", expected ") {
        Some((found, expected)) if expected.contains("string") => {
            format!("must be text, not {found}; put it in quotes")
        }
        Some((found, expected)) => format!("must be {expected}, not {found}"),
        None => text.to_owned(),
    }
}
