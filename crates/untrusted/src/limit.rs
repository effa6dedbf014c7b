//! Named limits.

use std::{error::Error, fmt, io};

/// Limit on something that somebody else can make large. Each crate has its limits in a module `limits`;
/// `docs/limits.md` lists them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Name of the limit in messages and in `docs/limits.md`: `manifest file`.
    pub name: &'static str,
    /// Largest amount that is accepted, in bytes unless the name says otherwise.
    pub most: u64,
}

impl Limit {
    /// Makes a limit.
    #[must_use]
    pub const fn new(name: &'static str, most: u64) -> Self {
        Self { name, most }
    }

    /// Returns the limit as a size in memory.
    #[must_use]
    pub fn size(self) -> usize {
        usize::try_from(self.most).unwrap_or(usize::MAX)
    }

    /// Fails when `size` is above the limit.
    ///
    /// # Errors
    /// [`TooLarge`], with this limit.
    pub fn check(self, size: u64) -> Result<(), TooLarge> {
        if size > self.most { Err(TooLarge(self)) } else { Ok(()) }
    }

    /// Fails when `count` is above the limit.
    ///
    /// # Errors
    /// [`TooMany`], with this limit.
    pub fn check_count(self, count: usize) -> Result<(), TooMany> {
        if count > self.size() { Err(TooMany(self)) } else { Ok(()) }
    }

    /// Cuts a text at a character boundary and says so at its end; a text within the limit stays as it is.
    #[must_use]
    pub fn cut(self, text: &str) -> std::borrow::Cow<'_, str> {
        if text.len() <= self.size() {
            return text.into();
        }
        let mark = format!("… (cut: {} bytes, limit \"{}\")", text.len(), self.name);
        let end = text.floor_char_boundary(self.size().saturating_sub(mark.len()));
        format!("{}{mark}", text.get(..end).unwrap_or_default()).into()
    }
}

/// Error of a size above its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge(pub Limit);

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is larger than {} bytes (limit \"{}\")", self.0.most, self.0.name)
    }
}

impl Error for TooLarge {}

impl From<TooLarge> for io::Error {
    fn from(error: TooLarge) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

/// Error of a count above its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub Limit);

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there are more than {} (limit \"{}\")", self.0.most, self.0.name)
    }
}

impl Error for TooMany {}

impl From<TooMany> for io::Error {
    fn from(error: TooMany) -> Self {
        Self::new(io::ErrorKind::FileTooLarge, error)
    }
}

#[cfg(test)]
mod tests {
    use super::Limit;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        let limit = Limit::new("event", 64);
        assert_eq!(limit.cut("short"), "short");
        let long = "ä".repeat(100);
        let cut = limit.cut(&long);
        assert!(cut.len() <= 64 && cut.starts_with("ää"), "{cut}");
        assert!(cut.ends_with("… (cut: 200 bytes, limit \"event\")"), "{cut}");
        assert_eq!(limit.check(64), Ok(()));
        let error = limit.check(65).expect_err("it is larger").to_string();
        assert_eq!(error, "it is larger than 64 bytes (limit \"event\")");
        let layers = Limit::new("layers of an image", 2);
        assert_eq!(layers.check_count(2), Ok(()));
        let error = layers.check_count(3).expect_err("there are more").to_string();
        assert_eq!(error, "there are more than 2 (limit \"layers of an image\")");
    }

    #[test]
    fn a_limit_smaller_than_its_mark_cuts_everything() {
        assert!(Limit::new("tiny", 1).cut(&"x".repeat(50)).starts_with('…'));
    }
}
