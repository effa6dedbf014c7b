//! Rules (`docs/rules.md`), and the tests that prove them.
//!
//! - [`list`] reads the rules; `items` finds the functions of a source file, and `code` what is code in them;
//!   [`evidence`] finds the rules' tests.

mod code;
pub mod evidence;
mod items;
pub mod list;

use std::{collections::BTreeMap, path::Path};

use anyhow::Result;

pub use self::list::{Rule, Verdict};

/// Rules with the tests that prove them.
#[derive(Debug)]
pub struct Proof {
    /// Rules, in the order of the list.
    pub rules: Vec<Rule>,
    /// Tests and recordings by the rule's id.
    pub tests: BTreeMap<String, Vec<String>>,
    /// Faults: ids that no rule has, ids in test code that no test uses, rules that need a test and have none.
    pub problems: Vec<String>,
}

impl Proof {
    /// Collects the rules and tests of the workspace at `root`.
    ///
    /// # Errors
    /// If a file cannot be read, or the list is malformed.
    pub fn collect(root: &Path) -> Result<Self> {
        let rules = list::read(&root.join("docs/rules.md"))?;
        let found = evidence::collect(root)?;
        let mut problems = found.loose;
        let known = |id: &str| rules.iter().any(|rule| rule.id == id);
        for (id, place) in &found.mentions {
            if !known(id) {
                problems.push(format!("{place}: {id} is no rule of docs/rules.md"));
            }
        }
        let mut proof = Self { rules, tests: found.tests, problems };
        let owed = proof.rules.iter().filter(|rule| proof.is_owed(rule));
        let owed: Vec<_> = owed.map(|rule| format!("{} has neither test nor verdict", rule.id)).collect();
        proof.problems.extend(owed);
        Ok(proof)
    }

    /// Returns the tests of a rule, or of the rule that its verdict refers to.
    #[must_use]
    pub fn of(&self, rule: &Rule) -> &[String] {
        let own = self.tests.get(&rule.id);
        let tests = match &rule.verdict {
            Some(Verdict::As(other)) => own.or_else(|| self.tests.get(other)),
            _ => own,
        };
        tests.map_or(&[], Vec::as_slice)
    }

    /// Returns whether a rule that is needed or expected has neither test nor verdict.
    fn is_owed(&self, rule: &Rule) -> bool {
        let excused = matches!(rule.verdict, Some(Verdict::NotTaken(_) | Verdict::Later(_)));
        rule.priority < 2 && !excused && self.of(rule).is_empty()
    }
}
