//! What a fake container does when it runs.

use std::time::Duration;

use super::{FakeRuntime, lock};

/// What containers of one name do, in place of what their command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Ends by itself with this code, this long after its start.
    pub exit: Option<(Duration, i32)>,
    /// What it does when it is told to stop.
    pub on_term: TermAction,
}

/// What a container does when it receives its stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermAction {
    /// Exits with `code` after `delay`.
    Exit {
        /// How long it takes to end.
        delay: Duration,
        /// The exit code.
        code: i32,
    },
    /// Goes on until it is killed.
    Ignore,
}

impl Default for TermAction {
    /// At once, with 143: `SIGTERM` and no handler.
    fn default() -> Self {
        Self::Exit { delay: Duration::ZERO, code: 143 }
    }
}

impl Program {
    /// Runs until it is told to stop, then exits with 143 at once.
    #[must_use]
    pub fn server() -> Self {
        Self { exit: None, on_term: TermAction::default() }
    }

    /// Runs until it is killed.
    #[must_use]
    pub fn stubborn() -> Self {
        Self { exit: None, on_term: TermAction::Ignore }
    }

    /// Ends by itself with `code`, `after` its start.
    #[must_use]
    pub fn exits(after: Duration, code: i32) -> Self {
        Self { exit: Some((after, code)), on_term: TermAction::default() }
    }

    /// Takes `delay` from the stop signal to its exit with `code`.
    #[must_use]
    pub fn stops_in(delay: Duration, code: i32) -> Self {
        Self { exit: None, on_term: TermAction::Exit { delay, code } }
    }
}

impl FakeRuntime {
    /// From the next start on, containers of this name do `program`.
    pub fn program(&self, container_name: &str, program: Program) {
        lock(&self.shared.state).programs.insert(container_name.to_owned(), program);
    }
}
