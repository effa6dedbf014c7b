//! What is wrong with a manifest, in words that name the place and the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong (or doubtful) in a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Path of the field, e.g. `spec.containers[0].image`; empty where it is the document as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong, what was expected and the way out, e.g. `unknown field "imge", did you mean "image"?`.
    pub message: String,
}

impl fmt::Display for Problem {
    /// `line 7, column 5: spec.containers[0].imge: unknown field, did you mean "image"?`
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
