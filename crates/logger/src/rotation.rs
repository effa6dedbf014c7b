//! Rotates the log file: names rotated files and removes the oldest.
//!
//! Names are kubelet's: `0.log` becomes `0.log.20261123-211530`. A second rotation in the same second, or after the
//! clock was set back, appends the next number to the latest name: `0.log.20261123-211530.001`. So names sort by age.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::utc::Utc;

/// Renames the file to its rotated name. Does nothing if there is no file.
pub fn rotate(path: &Path, now: Utc) -> io::Result<()> {
    let latest = rotated(path)?.pop();
    let stamp = next_stamp(latest.as_deref(), &now.compact());
    match fs::rename(path, with_stamp(path, &stamp)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Removes the oldest rotated files, so that `keep` are left. Tries all of them, and returns the first error.
pub fn prune(path: &Path, keep: usize) -> io::Result<()> {
    let stamps = rotated(path)?;
    let surplus = stamps.len().saturating_sub(keep);
    let removals = stamps[..surplus].iter().map(|stamp| fs::remove_file(with_stamp(path, stamp)));
    removals.fold(Ok(()), Result::and)
}

/// Returns the stamps of the rotated files, oldest first. Ignores files with other names beside the log.
fn rotated(path: &Path) -> io::Result<Vec<String>> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut stamps = Vec::new();
    for entry in fs::read_dir(dir)? {
        let other = entry?.file_name();
        let stamp = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes()).and_then(|it| it.strip_prefix(b"."));
        if let Some(stamp) = stamp.and_then(|stamp| std::str::from_utf8(stamp).ok()).filter(|stamp| is_stamp(stamp)) {
            stamps.push(stamp.to_owned());
        }
    }
    stamps.sort_unstable();
    Ok(stamps)
}

/// Returns whether a text is like `20261123-211530`, `20261123-211530.001` or `20261123-211530.999.001`.
fn is_stamp(text: &str) -> bool {
    let mut parts = text.split('.');
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let time = parts.next().and_then(|time| time.split_once('-'));
    time.is_some_and(|(day, second)| digits(day, 8) && digits(second, 6)) && parts.all(|number| digits(number, 3))
}

/// Returns the stamp of `now`, or one that sorts after `latest` if `now` does not.
fn next_stamp(latest: Option<&str>, now: &str) -> String {
    match latest {
        // While the clock is behind `latest`, there can be any number of stamps: of two with the same prefix, the
        // longer sorts last.
        Some(latest) if now <= latest => match latest.rsplit_once('.') {
            Some((before, number)) if number < "999" => {
                format!("{before}.{:03}", number.parse().unwrap_or(0_u16) + 1)
            }
            _ => format!("{latest}.001"),
        },
        _ => now.to_owned(),
    }
}

fn with_stamp(path: &Path, stamp: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(stamp);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_always_sort_after_the_latest() {
        for (latest, now, next) in [
            (None, "20261123-211530", "20261123-211530"),
            (Some("20261123-211529"), "20261123-211530", "20261123-211530"),
            (Some("20261123-211529.007"), "20261123-211530", "20261123-211530"),
            (Some("20261123-211530"), "20261123-211530", "20261123-211530.001"),
            (Some("20261123-211530.009"), "20261123-211530", "20261123-211530.010"),
            (Some("20270101-000000"), "20261123-211530", "20270101-000000.001"),
            (Some("20270101-000000.998"), "20261123-211530", "20270101-000000.999"),
            (Some("20270101-000000.999"), "20261123-211530", "20270101-000000.999.001"),
            (Some("20270101-000000.999.001"), "20261123-211530", "20270101-000000.999.002"),
        ] {
            assert_eq!(next_stamp(latest, now), next);
            assert!(latest < Some(next));
        }
    }

    #[test]
    fn only_own_names_count() {
        for (name, own) in [
            ("20261123-211530", true),
            ("20261123-211530.001", true),
            ("20261123-211530.999.001", true),
            ("20261123-211530.", false),
            ("20261123-211530.gz", false),
            ("bak", false),
            ("20261123", false),
            ("2026112-3211530", false),
        ] {
            assert_eq!(is_stamp(name), own, "{name}");
        }
    }
}
