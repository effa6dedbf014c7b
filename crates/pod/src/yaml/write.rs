//! Writes YAML that YAML 1.1 and 1.2 read alike. serde_yaml itself quotes only what YAML 1.2 takes for numbers and
//! words.

use serde_yaml::{Mapping, Value};

use super::scalar;

/// Writes a value, with quotes around every text that Kubernetes would read as something else.
pub(crate) fn write<T: serde::Serialize>(value: &T) -> Result<String, serde_yaml::Error> {
    let value = serde_yaml::to_value(value)?;
    let mut texts = Texts { stand_in: "text".to_owned(), quoted: Vec::new() };
    // The stand-in for texts must not occur anywhere else.
    while occurs(&value, &texts.stand_in) {
        texts.stand_in.push('t');
    }
    let written = serde_yaml::to_string(&texts.replaced(value))?;
    if texts.quoted.is_empty() {
        return Ok(written);
    }
    let mut parts = written.split(&texts.stand_in);
    let mut yaml = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once('-').unwrap_or_default();
        let text = number.parse::<usize>().ok().and_then(|number| texts.quoted.get(number));
        yaml.push_str(text.map_or("", String::as_str));
        yaml.push_str(rest);
    }
    Ok(yaml)
}

fn occurs(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Sequence(items) => items.iter().any(|item| occurs(item, text)),
        Value::Mapping(entries) => entries.iter().any(|(key, value)| occurs(key, text) || occurs(value, text)),
        Value::Tagged(tagged) => occurs(&tagged.value, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

struct Texts {
    stand_in: String,
    quoted: Vec<String>,
}

impl Texts {
    fn replaced(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) if scalar::is_ambiguous(&text) => {
                self.quoted.push(quoted(&text));
                Value::String(format!("{}{}-", self.stand_in, self.quoted.len() - 1))
            }
            Value::Sequence(items) => Value::Sequence(items.into_iter().map(|item| self.replaced(item)).collect()),
            Value::Mapping(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (self.replaced(key), self.replaced(value)));
                Value::Mapping(entries.collect::<Mapping>())
            }
            other => other,
        }
    }
}

/// Puts a text in double quotes, with the escapes that JSON and YAML have in common.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    for char in serde_json::Value::from(text).to_string().chars() {
        match char {
            ' '..='~' => quoted.push(char),
            char if super::text::is_readable(char) && !char.is_control() && char != '\u{feff}' => quoted.push(char),
            char => quoted.push_str(&format!("\\u{:04x}", u32::from(char))),
        }
    }
    quoted
}
