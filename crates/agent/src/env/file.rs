//! Reads variables from files of a volume: `fileKeyRef` (R-ENV-6).

use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use stanchion_untrusted::read_from;

use crate::{files::inside, limits};

/// Reason why a variable cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("environment variable key {key:?} not found in file {path:?}")]
    Missing { path: PathBuf, key: String },
    #[error("cannot read environment variables from file {path:?}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot read environment variables from file {path:?}: line {line}: {why}")]
    Syntax { path: PathBuf, line: usize, why: &'static str },
}

impl FileError {
    pub fn missing(root: &Path, path: &str, key: &str) -> Self {
        Self::Missing { path: root.join(path), key: key.to_owned() }
    }
}

/// Returns the variable `key` of a file below `root`; `None` if the file, the key or the value is missing. No link that
/// a container made leads out of the volume.
pub(super) fn read(root: &Path, path: &str, key: &str) -> Result<Option<String>, FileError> {
    let failed = |source| FileError::Io { path: root.join(path), source };
    let file = match inside::open_file(root, Path::new(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let text = text(file).map_err(failed)?;
    let found = find(&text, key).map_err(|(line, why)| FileError::Syntax { path: root.join(path), line, why })?;
    Ok(found.filter(|value| !value.is_empty()).map(str::to_owned))
}

fn text(file: File) -> io::Result<String> {
    let text = String::from_utf8(read_from(file, limits::ENV_FILE)?);
    let text = text.ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it is no text in UTF-8"))
}

/// Parses the text from the top until it finds `key`. The format is `NAME='value'`; values may span lines, and there
/// are no escapes.
fn find<'a>(text: &'a str, key: &str) -> Result<Option<&'a str>, (usize, &'static str)> {
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let (current, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let begin = current.trim_start();
        if begin.trim_end().is_empty() || begin.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let (name, value) = begin.split_once('=').ok_or((line, "there is no ="))?;
        if name.is_empty() {
            return Err((line, "there is no name before ="));
        }
        if name.ends_with([' ', '\t']) {
            return Err((line, "there is a blank before ="));
        }
        let (value, taken) = if value.starts_with([' ', '\t']) {
            // A blank after = says that the value is empty.
            ("", after)
        } else {
            let value = value.strip_prefix('\'').ok_or((line, "the value is not in single quotes"))?;
            let start = text.len() - rest.len() + current.len() - value.len();
            let length = text[start..].find('\'').ok_or((line, "the quote is not closed"))?;
            let (value, tail) = (&text[start..start + length], &text[start + length + 1..]);
            line += value.matches('\n').count();
            let (trailing, after) = tail.split_once('\n').unwrap_or((tail, ""));
            let trailing = trailing.trim();
            if !trailing.is_empty() && !trailing.starts_with('#') {
                return Err((line, "there is text after the closing quote"));
            }
            (value, after)
        };
        if name == key {
            return Ok(Some(value));
        }
        (rest, line) = (taken, line + 1);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn files_are_read_as_a_kubelet_reads_them() {
        let text = "# comment\n\n  TOKEN='abc def'\nQUOTED='x=y # z' # why\nLINES='one\ntwo'\nEMPTY= 'x'\nLAST='z'";
        for (key, expected) in [
            ("TOKEN", Some("abc def")),
            ("QUOTED", Some("x=y # z")),
            ("LINES", Some("one\ntwo")),
            ("EMPTY", Some("")),
            ("LAST", Some("z")),
            ("ABSENT", None),
        ] {
            assert_eq!(find(text, key), Ok(expected), "{key}: R-ENV-6");
        }
    }

    #[test]
    fn what_a_container_put_there_is_read_and_leads_nowhere_else() {
        let volume = tempfile::tempdir().expect("a directory");
        let read = |path: &str, key: &str| super::read(volume.path(), path, key);
        std::fs::write(volume.path().join("app.env"), "TOKEN='abc'\nEMPTY=''\n").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", volume.path().join("way-out")).expect("linked");
        assert_eq!(read("app.env", "TOKEN").expect("it can be read").as_deref(), Some("abc"), "R-ENV-6");
        for (path, key) in [("app.env", "ABSENT"), ("app.env", "EMPTY"), ("absent.env", "TOKEN")] {
            assert_eq!(read(path, key).expect("it is only missing"), None, "{path} {key}: R-ENV-6");
        }
        assert!(read("way-out", "TOKEN").is_err() && read("../app.env", "TOKEN").is_err(), "R-MNT-4");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in
            [("A", 1), ("A='1'\n='x'", 2), ("A ='x'", 1), ("A=x", 1), ("A='x", 1), ("A='1\n2' x", 2), ("#\nB=\"x\"", 2)]
        {
            assert_eq!(find(text, "Z").map_err(|(line, _)| line), Err(line), "{text:?}: R-ENV-6");
        }
        assert_eq!(find("A='1'\nB", "A"), Ok(Some("1")), "it stops at the key: R-ENV-6");
    }
}
