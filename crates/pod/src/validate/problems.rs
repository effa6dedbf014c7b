//! Kinds of validation problems, in the API server's words (R-VAL-1, R-VAL-2).

use std::fmt::{self, Display, Write as _};

use super::path::Path;
use crate::{Problem, problem};

/// Validation problems, in order.
#[derive(Default)]
pub(crate) struct Problems {
    pub found: problem::Problems,
}

impl Problems {
    pub fn count(&self) -> usize {
        self.found.count()
    }

    fn add(&mut self, path: &Path<'_>, message: impl FnOnce() -> String) {
        self.found.add(|| Problem { field: path.to_string(), message: message(), ..Problem::default() });
    }

    pub fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(path, || detailed("Required value".to_owned(), detail));
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: &str) {
        self.add(path, || detailed("Forbidden".to_owned(), detail));
    }

    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Shown>, detail: impl Display) {
        self.add(path, || detailed(format!("Invalid value: {}", value.into()), detail));
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Shown>) {
        self.add(path, || format!("Duplicate value: {}", value.into()));
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: &str, detail: &str) {
        self.add(path, || detailed(format!("Not found: {}", Shown::from(value)), detail));
    }

    pub fn too_long(&mut self, path: &Path<'_>, most: usize) {
        self.add(path, || format!("Too long: may not be more than {most} bytes"));
    }

    pub fn too_many(&mut self, path: &Path<'_>, count: usize, most: usize) {
        self.add(path, || format!("Too many: {count}: must have at most {most} items"));
    }

    pub fn unsupported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        self.not_among(path, Typed(value), supported);
    }

    /// Adds an unsupported value that is any text in Go, not one of a type of its own.
    pub fn not_among(&mut self, path: &Path<'_>, value: impl Into<Shown>, supported: &[&str]) {
        self.add(path, || {
            let supported: Vec<_> = supported.iter().map(|it| Shown::from(*it).0).collect();
            format!("Unsupported value: {}: supported values: {}", value.into(), supported.join(", "))
        });
    }

    /// Requires one of some values.
    pub fn one_of(&mut self, path: &Path<'_>, value: Option<&str>, supported: &[&str]) {
        match value.unwrap_or_default() {
            "" => self.required(path, ""),
            value => self.one_of_if_set(path, Some(value), supported),
        }
    }

    /// Requires one of some values, or none.
    pub fn one_of_if_set(&mut self, path: &Path<'_>, value: Option<&str>, supported: &[&str]) {
        if let Some(value) = value.filter(|value| !supported.contains(value)) {
            self.unsupported(path, value, supported);
        }
    }

    /// Adds all objections of a format to a value.
    pub fn format(&mut self, path: &Path<'_>, value: &str, objections: Vec<String>) {
        for objection in objections {
            self.invalid(path, value, objection);
        }
    }

    /// Adds all objections of a format to a value of a type of its own in Go.
    pub fn typed_format(&mut self, path: &Path<'_>, value: &str, objections: Vec<String>) {
        for objection in objections {
            self.invalid(path, Typed(value), objection);
        }
    }

    pub fn not_negative(&mut self, path: &Path<'_>, value: i64) {
        if value < 0 {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// Requires a number from `least` to `most`, both included.
    pub fn within(&mut self, path: &Path<'_>, value: i64, least: i64, most: i64) {
        if !(least..=most).contains(&value) {
            self.invalid(path, value, format_args!("must be between {least} and {most}, inclusive"));
        }
    }
}

fn detailed(mut text: String, detail: impl Display) -> String {
    let length = text.len();
    text.push_str(": ");
    // Writing to a String cannot fail.
    if write!(text, "{detail}").is_err() || text.len() == length + 2 {
        text.truncate(length);
    }
    text
}

/// Value as the server shows it: text in quotes, numbers plain, the rest as JSON.
pub(crate) struct Shown(String);

impl Shown {
    /// Takes JSON text, and escapes the further characters that Go's encoder escapes.
    pub fn json(text: String) -> Self {
        const ESCAPED: [char; 5] = ['<', '>', '&', '\u{2028}', '\u{2029}'];
        if !text.contains(ESCAPED) {
            return Self(text);
        }
        let mut shown = String::with_capacity(text.len() + 16);
        for char in text.chars() {
            match ESCAPED.contains(&char) {
                true => shown.push_str(&format!("\\u{:04x}", u32::from(char))),
                false => shown.push(char),
            }
        }
        Self(shown)
    }
}

/// Text that has a type of its own in Go, such as a policy, or is behind a pointer: the server shows it as JSON, and
/// other text in Go's quotes.
pub(crate) struct Typed<'a>(pub &'a str);

impl From<Typed<'_>> for Shown {
    fn from(text: Typed<'_>) -> Self {
        Self::json(serde_json::Value::from(text.0).to_string())
    }
}

/// Returns whether Go prints a character in quotes as it is.
fn is_printed(char: char) -> bool {
    // `escape_debug` escapes a combining character only at the start of a text; Go never does.
    let pair: String = ['a', char].into_iter().collect();
    char.is_ascii_graphic() || char == ' ' || !char.is_ascii() && pair.escape_debug().nth(1) == Some(char)
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Shown {
    fn from(text: &str) -> Self {
        let mut shown = String::with_capacity(text.len() + 2);
        shown.push('"');
        for char in text.chars() {
            match char {
                '"' => shown.push_str("\\\""),
                '\\' => shown.push_str("\\\\"),
                '\u{7}' => shown.push_str("\\a"),
                '\u{8}' => shown.push_str("\\b"),
                '\u{c}' => shown.push_str("\\f"),
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '\u{b}' => shown.push_str("\\v"),
                char if char.is_ascii_control() => shown.push_str(&format!("\\x{:02x}", u32::from(char))),
                char if is_printed(char) => shown.push(char),
                char if u32::from(char) > 0xffff => shown.push_str(&format!("\\U{:08x}", u32::from(char))),
                char => shown.push_str(&format!("\\u{:04x}", u32::from(char))),
            }
        }
        shown.push('"');
        Self(shown)
    }
}

impl From<&String> for Shown {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<i64> for Shown {
    fn from(number: i64) -> Self {
        Self(number.to_string())
    }
}

impl From<i32> for Shown {
    fn from(number: i32) -> Self {
        Self(number.to_string())
    }
}

impl From<bool> for Shown {
    fn from(bool: bool) -> Self {
        Self(bool.to_string())
    }
}

impl From<serde_json::Value> for Shown {
    fn from(value: serde_json::Value) -> Self {
        Self::json(value.to_string())
    }
}

impl From<&[String]> for Shown {
    fn from(list: &[String]) -> Self {
        Self::json(serde_json::Value::from(list).to_string())
    }
}

impl From<&crate::quantity::Quantity> for Shown {
    fn from(quantity: &crate::quantity::Quantity) -> Self {
        Self::from(quantity.to_string().as_str())
    }
}
