//! Limits of every crate (`limits.rs`), and the page that lists them (`docs/limits.md`).

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Limit, as its module declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Path of the module, relative to the workspace's root.
    pub place: PathBuf,
    /// Name of the limit in messages.
    pub name: String,
    /// Expression of its value, as in the source.
    pub value: String,
    /// Doc comment: the reason for the limit, and what happens beyond it.
    pub reason: String,
}

/// Finds every limit of the workspace at `root`, crate by crate.
///
/// # Errors
/// A module cannot be read, or declares a limit without a reason or in a way that is not understood.
pub fn collect(root: &Path) -> Result<Vec<Limit>> {
    let mut found = Vec::new();
    for group in ["crates", "plugins"] {
        let entries = fs::read_dir(root.join(group)).with_context(|| format!("cannot list {group}"))?;
        let mut crates = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
        crates.sort();
        for name in crates {
            let place = Path::new(group).join(name).join("src/limits.rs");
            if let Ok(source) = fs::read_to_string(root.join(&place)) {
                found.extend(declared(&place, &source)?);
            }
        }
    }
    Ok(found)
}

/// Finds the constants of one module.
fn declared(place: &Path, source: &str) -> Result<Vec<Limit>> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let (mut limits, mut reason, mut statement) = (Vec::new(), Vec::new(), String::new());
    for line in code.lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(text) => reason.push(text.trim()),
            None if !statement.is_empty() || line.contains("const ") => {
                write!(statement, " {line}").context("a String takes everything")?;
                if line.ends_with(';') {
                    let failed = || format!("{}: {statement}", place.display());
                    let (name, value) = parts(&statement).with_context(failed)?;
                    if reason.is_empty() {
                        bail!("{}: {name} has no reason", place.display());
                    }
                    limits.push(Limit { place: place.to_owned(), name, value, reason: reason.join(" ") });
                    reason.clear();
                    statement.clear();
                }
            }
            None => reason.clear(),
        }
    }
    Ok(limits)
}

/// Returns the name in messages and the value from `const NAME: Limit = Limit::new("name", value);`, or from a plain
/// constant.
fn parts(statement: &str) -> Result<(String, String)> {
    let (head, value) = statement.split_once(" = ").context("this is no constant")?;
    let constant = head.split(':').next().and_then(|head| head.split_whitespace().last()).context("it has no name")?;
    let value = value.trim().trim_end_matches(';').trim_end();
    let Some(arguments) = value.strip_prefix("Limit::new(") else {
        return Ok((constant.to_lowercase().replace('_', " "), value.to_owned()));
    };
    let arguments = arguments.trim_end_matches(')').trim_end().trim_end_matches(',').trim_start();
    let (name, value) = arguments
        .strip_prefix('"')
        .and_then(|arguments| arguments.split_once('"'))
        .and_then(|(name, value)| Some((name, value.trim_start().strip_prefix(',')?)))
        .context("a limit has a name and a value")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// Returns the text of `docs/limits.md`.
#[must_use]
pub fn page(limits: &[Limit]) -> String {
    let mut page = String::from(
        "# Limits\n\nWhatever a container, an image, a registry, an archive, a manifest, a server or a client can make large, deep or slow \
         is bounded before it is\nread. Messages name the limit that was met. This page is made from the modules `limits.rs` by `cargo \
         xtask limits`, and a test holds\nit to them.\n",
    );
    let mut last = None;
    for limit in limits {
        if last != Some(&limit.place) {
            let name = limit.place.parent().and_then(Path::parent).unwrap_or(&limit.place);
            page += &format!(
                "\n## {}\n\n| limit | value | why, and what happens beyond it |\n|---|---|---|\n",
                name.display()
            );
            last = Some(&limit.place);
        }
        let cell = |text: &str| text.replace('|', "\\|");
        page += &format!("| {} | `{}` | {} |\n", cell(&limit.name), cell(&limit.value), cell(&limit.reason));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_declared() {
        let source = "//! Bounds.\n\nuse x::Limit;\n\n// Files.\n\n/// A manifest\n/// is small.\npub(crate) const MANIFEST: Limit = \
                      Limit::new(\"manifest, file\", 10 << 20);\n/// Wide.\npub const LONG: Limit =\n    Limit::new(\n        \"long\",\n        \
                      5,\n    );\n/// Plain.\npub(crate) const MOST_PROBLEMS: usize = 100;\n";
        let limits = declared(Path::new("crates/x/src/limits.rs"), source).expect("it is understood");
        let short: Vec<_> = limits.iter().map(|it| (&*it.name, &*it.value, &*it.reason)).collect();
        let expected = [
            ("manifest, file", "10 << 20", "A manifest is small."),
            ("long", "5", "Wide."),
            ("most problems", "100", "Plain."),
        ];
        assert_eq!(short, expected);
        let page = page(&limits);
        assert!(
            page.contains("## crates/x\n") && page.contains("| manifest, file | `10 << 20` | A manifest is small. |"),
            "{page}"
        );
    }

    #[test]
    fn a_limit_without_a_reason_is_refused() {
        let error = declared(Path::new("limits.rs"), "const A: u64 = 1;\n").expect_err("there is no reason");
        assert!(error.to_string().contains("has no reason"), "{error}");
    }
}
