//! Result of a run of the suite.

use std::{fmt, time::Duration};

/// Verdicts of the cases, in the order of the suite.
///
/// Equality compares verdicts and not durations, so that runs through different ways to one backend can be compared.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// The cases.
    pub cases: Vec<Case>,
    /// Duration of each case, in the same order.
    pub durations: Vec<Duration>,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name of the case, `group.rule`.
    pub name: &'static str,
    /// Verdict of the case.
    pub verdict: Verdict,
}

/// Verdict of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps the rule.
    Passed,
    /// The backend does not have the tested feature.
    Unsupported,
    /// The backend breaks the rule.
    Failed {
        /// Observed and expected behaviour.
        why: String,
    },
}

impl Case {
    /// Formats verdict, duration, name, and cause of a failure.
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

/// Cause of a case's early end.
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

    /// Returns the cases whose rule is broken.
    #[must_use]
    pub fn failures(&self) -> Vec<&Case> {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. })).collect()
    }

    /// Returns the names of the cases about features that the backend does not have.
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
    /// Writes one line per case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cases.iter().zip(&self.durations).try_for_each(|(case, took)| writeln!(f, "{}", case.line(*took)))
    }
}
