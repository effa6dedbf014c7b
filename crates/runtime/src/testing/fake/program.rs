//! Behaviour of fake containers.

use std::time::Duration;

use super::{FakeRuntime, lock};

/// Behaviour of all containers of one name, in place of their command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Delay from the start to an exit, and the exit code; `None` runs until stopped.
    pub exit: Option<(Duration, i32)>,
    /// Reaction to the stop signal.
    pub on_term: TermAction,
}

/// Reaction of a container to its stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermAction {
    /// Exit with `code` after `delay`.
    Exit {
        /// Time from the signal to the exit.
        delay: Duration,
        /// Exit code.
        code: i32,
    },
    /// No reaction: the container runs until it is killed.
    Ignore,
}

impl Default for TermAction {
    /// Returns an immediate exit with 143, the effect of `SIGTERM` without a handler.
    fn default() -> Self {
        Self::Exit { delay: Duration::ZERO, code: 143 }
    }
}

impl Program {
    /// Returns a program that runs until its stop signal, then exits with 143 at once.
    #[must_use]
    pub fn server() -> Self {
        Self { exit: None, on_term: TermAction::default() }
    }

    /// Returns a program that runs until it is killed.
    #[must_use]
    pub fn stubborn() -> Self {
        Self { exit: None, on_term: TermAction::Ignore }
    }

    /// Returns a program that exits with `code`, `after` its start.
    #[must_use]
    pub fn exits(after: Duration, code: i32) -> Self {
        Self { exit: Some((after, code)), on_term: TermAction::default() }
    }

    /// Returns a program that exits with `code`, `delay` after its stop signal.
    #[must_use]
    pub fn stops_in(delay: Duration, code: i32) -> Self {
        Self { exit: None, on_term: TermAction::Exit { delay, code } }
    }
}

impl FakeRuntime {
    /// Sets the program of containers of this name, from the next start on.
    pub fn program(&self, container_name: &str, program: Program) {
        lock(&self.shared.state).programs.insert(container_name.to_owned(), program);
    }
}
