//! Names of fields: paths, and suggestions for unknown names.

use crate::{Problem, validate::quoted};

/// Longest unknown name that is compared with known names, bytes. No field has a longer one by far.
const MAX_LENGTH: usize = 64;

/// Joins a path and a field below it.
pub(crate) fn join(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

/// Makes the problem of an unknown field, with the most similar known one.
pub(crate) fn unknown(path: &str, field: &str, known: impl Iterator<Item = &'static str>) -> Problem {
    let lower = field.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &lower);
    let nearest = known
        .filter(|_| field.len() <= MAX_LENGTH)
        .map(|name| (likeness(name), name))
        .max_by(|one, other| one.0.total_cmp(&other.0));
    let field = quoted(field);
    let message = match nearest.filter(|(likeness, _)| *likeness > 0.75) {
        Some((_, known)) => format!("unknown field {field}, did you mean \"{known}\"?"),
        None => format!("unknown field {field}"),
    };
    Problem { field: path.to_owned(), message, ..Problem::default() }
}
