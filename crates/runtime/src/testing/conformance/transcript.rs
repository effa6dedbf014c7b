//! How a run of the suite went.

use std::{fmt, time::Duration};

/// What came of each case, in the order of the suite.
///
/// Equality compares verdicts and not durations, so that runs through different ways to one backend can be compared.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// The cases.
    pub cases: Vec<Case>,
    /// How long each took, in the same order.
    pub durations: Vec<Duration>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is about, `group.rule`.
    pub name: &'static str,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps the rule.
    Passed,
    /// The backend says that it does not have what the case is about.
    Unsupported,
    /// The backend breaks the rule.
    Failed {
        /// What it did, and what was expected.
        why: String,
    },
}

impl Case {
    /// Verdict, duration, name, and why it failed.
    #[must_use]
    pub fn line(&self, took: Duration) -> String {
        let (verdict, why) = match &self.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Unsupported => ("unsupported", ""),
            Verdict::Failed { why } => ("FAILED", why.as_str()),
        };
        format!("{verdict:<11} {:>6} ms  {} {why}", took.as_millis(), self.name).trim_end().to_owned()
    }
}

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum Stop {
    Unsupported,
    Failed(String),
}

pub(super) type Outcome<T = ()> = Result<T, Stop>;

impl From<crate::Error> for Stop {
    fn from(error: crate::Error) -> Self {
        match error.kind() {
            crate::ErrorKind::Unsupported => Self::Unsupported,
            kind => Self::Failed(format!("{kind:?}: {}", error.chain())),
        }
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("I/O of the suite itself: {error}"))
    }
}

impl Transcript {
    pub(super) fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        let verdict = match outcome {
            Ok(()) => Verdict::Passed,
            Err(Stop::Unsupported) => Verdict::Unsupported,
            Err(Stop::Failed(why)) => Verdict::Failed { why },
        };
        self.cases.push(Case { name, verdict });
        self.durations.push(took);
    }

    /// The cases whose rule is broken.
    #[must_use]
    pub fn failures(&self) -> Vec<&Case> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. })).collect()
    }

    /// The names of the cases that are about what the backend does not have.
    #[must_use]
    pub fn unsupported(&self) -> Vec<&'static str> {
        let unsupported = self.cases.iter().filter(|case| case.verdict == Verdict::Unsupported);
        unsupported.map(|case| case.name).collect()
    }
}

impl PartialEq for Transcript {
    fn eq(&self, other: &Self) -> bool {
        self.cases == other.cases
    }
}

impl Eq for Transcript {}

impl fmt::Display for Transcript {
    /// One line a case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cases.iter().zip(&self.durations).try_for_each(|(case, took)| writeln!(f, "{}", case.line(*took)))
    }
}
