//! Processes run in a container beside its own.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ExecId};

/// A process to run in a running container, with the container's environment, user and working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Chosen by the agent; names this exec in `resize_exec`.
    pub id: ExecId,
    /// Where.
    pub container: ContainerId,
    /// Program and arguments; not a shell line.
    pub command: Vec<String>,
    /// Whether the process gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Size of that terminal at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// What becomes of the processes that it has started and that outlive it.
    #[serde(default, skip_serializing_if = "Descendants::stay")]
    pub descendants: Descendants,
}

/// What becomes of the processes that an exec has started when it is over. It is over when its own process ends, or when
/// its caller gives it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Descendants {
    /// They stay, and the exec lasts as long as they hold its outputs open: an administrator's exec.
    #[default]
    Stay,
    /// They stay when its process ends, and end when it is given up: a hook. The exec does not wait for its outputs.
    EndIfGivenUp,
    /// They end with it: a probe. The exec does not wait for its outputs.
    End,
}

impl Descendants {
    fn stay(&self) -> bool {
        *self == Self::Stay
    }
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Ends of pipes for a process, owned by the backend from the call on. The backend reads `stdin` to its end and closes
/// the outputs when the process has written all.
#[derive(Debug, Default)]
pub struct ExecStdio {
    /// The process reads what is written to the other end; `None` is an empty input.
    pub stdin: Option<OwnedFd>,
    /// Receives the process's output; `None` discards it.
    pub stdout: Option<OwnedFd>,
    /// Receives the process's error output; `None` discards it.
    pub stderr: Option<OwnedFd>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, 128 + signal for a signal.
    pub code: i32,
}
