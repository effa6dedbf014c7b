//! The list of rules: rows of Markdown, `| id | priority | what | verdict |`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

/// Rule.
#[derive(Debug)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// 0 is needed, 1 expected, 2 complete.
    pub priority: u8,
    /// Its text, in short.
    pub what: String,
    /// Reason why it needs no test of its own.
    pub verdict: Option<Verdict>,
}

/// Reason why a rule has no test of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliberately not done, with the reason.
    NotTaken(String),
    /// Not done yet, with a remark.
    Later(String),
    /// Same as another rule, whose tests prove this one too.
    As(String),
}

/// Reads the list.
///
/// # Errors
/// If it cannot be read, a row is malformed, an id occurs twice, or a verdict refers to a rule that does not exist.
pub fn read(path: &Path) -> Result<Vec<Rule>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| R-")) {
        let rule = row(line).with_context(|| format!("{}: {line}", path.display()))?;
        ensure!(rules.iter().all(|other| other.id != rule.id), "{}: {} comes twice", path.display(), rule.id);
        rules.push(rule);
    }
    for rule in &rules {
        if let Some(Verdict::As(other)) = &rule.verdict {
            ensure!(rules.iter().any(|it| it.id == *other), "{}: {} is as {other}", path.display(), rule.id);
        }
    }
    Ok(rules)
}

fn row(line: &str) -> Result<Rule> {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
    let &[id, priority, what, verdict] = cells.as_slice() else { bail!("a row has four cells") };
    let priority = priority.strip_prefix('P').and_then(|it| it.parse().ok()).context("a priority is P0, P1 or P2")?;
    ensure!(priority <= 2 && !what.is_empty(), "a row has a priority and says something");
    Ok(Rule { id: id.to_owned(), priority, what: what.to_owned(), verdict: read_verdict(verdict)? })
}

fn read_verdict(text: &str) -> Result<Option<Verdict>> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(reason) = text.strip_prefix("not taken: ") {
        return Ok(Some(Verdict::NotTaken(reason.to_owned())));
    }
    if let Some(reason) = text.strip_prefix("later") {
        return Ok(Some(Verdict::Later(reason.trim_start_matches(": ").to_owned())));
    }
    match text.strip_prefix("as ") {
        Some(other) => Ok(Some(Verdict::As(other.to_owned()))),
        None => bail!("a verdict is `not taken: why`, `later` or `as R-…`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_wrong_ones_refused() {
        let rule = row("| A-1 | P1 | does | not taken: it is better so |").expect("a good row");
        assert_eq!((rule.id.as_str(), rule.priority, rule.what.as_str()), ("A-1", 1, "does"));
        assert_eq!(rule.verdict, Some(Verdict::NotTaken("it is better so".to_owned())));
        assert_eq!(row("| A-1 | P0 | does | |").expect("a good row").verdict, None);
        let later = row("| A-1 | P0 | does | later |").expect("a good row").verdict;
        assert_eq!(later, Some(Verdict::Later(String::new())));
        for wrong in ["| A-1 | P3 | does | |", "| A-1 | P0 | |", "| A-1 | P0 | does | perhaps |"] {
            assert!(row(wrong).is_err(), "{wrong}");
        }
    }
}
