//! Command line: pairs of a key and a value, in any order. containerd's shim passes the query of the `binary://` URL.

use std::{ffi::OsString, path::PathBuf};

/// Path and size limits of the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `log`: the log file.
    pub path: PathBuf,
    /// `max-size`: the file is rotated before it grows beyond this, bytes.
    pub max_size: u64,
    /// `max-files`: how many files to keep, the current one included.
    pub max_files: usize,
    /// `input`: a pipe to hold open, so that the container's stdin does not end before anybody has written to it.
    pub input: Option<PathBuf>,
}

impl Arguments {
    const MAX_SIZE: u64 = 10 << 20;
    const MAX_FILES: usize = 5;

    /// Parses the command line, without the program's name.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let (mut path, mut input) = (None, None);
        let (mut max_size, mut max_files) = (Self::MAX_SIZE, Self::MAX_FILES);
        let mut words = words.into_iter();
        while let Some(key) = words.next() {
            let value = words.next().ok_or_else(|| format!("{} has no value", key.display()))?;
            match key.to_str() {
                Some("log") => path = Some(PathBuf::from(value)),
                Some("max-size") => max_size = number("max-size", &value)?,
                Some("max-files") => max_files = number("max-files", &value)?,
                Some("input") => input = Some(PathBuf::from(value)),
                _ => return Err(format!("unknown key {}: expected log, max-size, max-files or input", key.display())),
            }
        }
        let path = path.ok_or("the key log, with the path of the log file, is missing")?;
        if !path.is_absolute() || path.file_name().is_none() {
            return Err(format!("log {}: expected the absolute path of a file", path.display()));
        }
        Ok(Self { path, max_size, max_files, input })
    }
}

fn number<T: std::str::FromStr + Default + PartialEq>(key: &str, value: &OsString) -> Result<T, String> {
    let number = value.to_str().and_then(|value| value.parse().ok()).filter(|number| *number != T::default());
    number.ok_or_else(|| format!("{key} {}: expected a whole number above 0", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Arguments, String> {
        Arguments::parse(words.split_whitespace().map(OsString::from))
    }

    #[test]
    fn pairs_come_in_any_order() {
        let expected = Arguments { path: "/l/0.log".into(), max_size: 100, max_files: 2, input: Some("/i".into()) };
        assert_eq!(parse("max-files 2 log /l/0.log input /i max-size 100"), Ok(expected));
    }

    #[test]
    fn limits_have_kubelets_defaults() {
        let expected = Arguments { path: "/l/0.log".into(), max_size: 10 * 1024 * 1024, max_files: 5, input: None };
        assert_eq!(parse("log /l/0.log"), Ok(expected));
    }

    #[test]
    fn mistakes_are_named() {
        for (words, message) in [
            ("", "the key log, with the path of the log file, is missing"),
            ("log", "log has no value"),
            ("log 0.log", "log 0.log: expected the absolute path of a file"),
            ("log /", "log /: expected the absolute path of a file"),
            ("log /l max-size 1k", "max-size 1k: expected a whole number above 0"),
            ("log /l max-files 0", "max-files 0: expected a whole number above 0"),
            ("log /l colour red", "unknown key colour: expected log, max-size, max-files or input"),
        ] {
            assert_eq!(parse(words), Err(message.to_owned()));
        }
    }
}
