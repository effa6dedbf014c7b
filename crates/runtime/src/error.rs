//! Errors that cross the contract: a closed kind for decisions, and texts for people.

use std::{error::Error as StdError, fmt, time::Duration};

use crate::limits::{ERROR_CAUSES, ERROR_TEXT};

/// Result of every method of [`Runtime`](crate::Runtime).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Kind of a failure. The agent branches on this and never on text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum ErrorKind {
    /// Any other failure; the agent retries with back-off.
    Other = 1,
    /// The named sandbox, container or image does not exist.
    NotFound = 2,
    /// An object with that identity exists already.
    AlreadyExists = 3,
    /// The object's state does not permit the operation.
    Conflict = 4,
    /// The runtime or registry cannot be reached now; a retry may succeed.
    Unavailable = 5,
    /// The request itself is wrong; the same request will fail again.
    Invalid = 6,
    /// Rights or credentials are missing.
    Permission = 7,
    /// No answer in time. The outcome is unknown: look before acting again.
    Timeout = 8,
    /// The backend does not have this method or feature.
    Unsupported = 9,
    /// The caller gave up. The outcome is unknown.
    Cancelled = 10,
    /// The backend panicked in this call. The outcome is unknown.
    Crashed = 11,
}

impl ErrorKind {
    /// Returns the kind's number on the library boundary.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Returns the kind for a number from the library boundary; unknown numbers are [`Other`](ErrorKind::Other).
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        match code {
            2 => Self::NotFound,
            3 => Self::AlreadyExists,
            4 => Self::Conflict,
            5 => Self::Unavailable,
            6 => Self::Invalid,
            7 => Self::Permission,
            8 => Self::Timeout,
            9 => Self::Unsupported,
            10 => Self::Cancelled,
            11 => Self::Crashed,
            _ => Self::Other,
        }
    }
}

/// Shortens a text at a character boundary and appends a note with its original length.
fn cut(mut text: String) -> String {
    if text.len() > ERROR_TEXT {
        let mark = format!("… (cut: {} bytes)", text.len());
        text.truncate(text.floor_char_boundary(ERROR_TEXT - mark.len()));
        text.push_str(&mark);
    }
    text
}

/// A failed operation: its kind, a message with the operation and its object, and the texts of the causes, outermost
/// first.
///
/// Display shows only `message`; print causes with [`Error::chain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// Builds an error of `kind`; `message` names the operation, its object and how it ended.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: cut(message.into()), causes: Vec::new(), retry_after: None }
    }

    /// Builds the error of a backend that does not support `what`.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{what} is not supported by this backend"))
    }

    /// Adds `cause` and its sources.
    #[must_use]
    pub fn caused_by(mut self, cause: &(dyn StdError + 'static)) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            let text = cut(cause.to_string());
            // Transparent wrappers repeat the text of the error inside.
            if self.causes.last() != Some(&text) && self.causes.len() < ERROR_CAUSES {
                self.causes.push(text);
            }
            next = cause.source();
        }
        self
    }

    /// Adds the text of one cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        if self.causes.len() < ERROR_CAUSES {
            self.causes.push(cut(cause.into()));
        }
        self
    }

    /// Sets the delay after which a retry is worthwhile, as a registry's `Retry-After` does.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Wraps the error in the wider operation that failed with it; kind and retry delay stay.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        self.causes.insert(0, std::mem::replace(&mut self.message, cut(message.into())));
        self.causes.truncate(ERROR_CAUSES);
        self
    }

    /// Returns the kind that the agent decides on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the message, without the causes.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the texts of the causes, outermost first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// Returns how long to wait before a retry, if the other side said so.
    #[must_use]
    pub const fn retry_delay(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns message and causes as one line, `message: cause: cause`.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut line = self.message.clone();
        for cause in &self.causes {
            line.push_str(": ");
            line.push_str(cause);
        }
        line
    }

    /// Returns the body of a failed answer on the library boundary: JSON `{message, causes, retry_after_ms?}`.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let retry_after_ms = self.retry_after.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        let body = Body { message: self.message.clone(), causes: self.causes.clone(), retry_after_ms };
        serde_json::to_vec(&body).unwrap_or_else(|_| self.message.clone().into_bytes())
    }

    /// Builds the error from a code and a body of the library boundary. A body that is not JSON becomes the message, so
    /// that backends in C stay easy.
    #[must_use]
    pub fn from_body(code: u32, body: &[u8]) -> Self {
        let kind = ErrorKind::from_code(code);
        match serde_json::from_slice::<Body>(body) {
            Ok(body) => Self {
                kind,
                message: cut(body.message),
                causes: body.causes.into_iter().take(ERROR_CAUSES).map(cut).collect(),
                retry_after: body.retry_after_ms.map(Duration::from_millis),
            },
            Err(_) => Self::new(kind, String::from_utf8_lossy(body)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

#[derive(serde::Serialize, serde::Deserialize)]
struct Body {
    message: String,
    #[serde(default)]
    causes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_is_kept_in_part() {
        let long = "ä".repeat(1 << 20);
        let mut error = Error::new(ErrorKind::Other, long.clone());
        for _ in 0..100 {
            error = error.because(long.clone()).context(long.clone());
        }
        let body = serde_json::json!({ "message": long, "causes": vec![long.clone(); 100] }).to_string();
        for error in [error, Error::from_body(1, body.as_bytes()), Error::from_body(1, long.as_bytes())] {
            assert!(error.chain().len() <= (ERROR_CAUSES + 1) * (ERROR_TEXT + 2), "{} bytes", error.chain().len());
            assert!(error.message().ends_with("… (cut: 2097152 bytes)"), "{}", error.message());
        }
    }
}
