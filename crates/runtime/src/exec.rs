//! Processes that run in a container beside its own.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use crate::{ContainerId, ExecId};

/// A process to run in a running container, with the container's environment, user and working directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Id chosen by the agent; `resize_exec` names the exec by it.
    pub id: ExecId,
    /// Container to run the process in.
    pub container: ContainerId,
    /// Program and arguments; not a shell line.
    pub command: Vec<String>,
    /// `true`: the process gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Initial size of that terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<TerminalSize>,
    /// Treatment of child processes that outlive the exec's process.
    #[serde(default, skip_serializing_if = "Descendants::stay")]
    pub descendants: Descendants,
}

/// Treatment of processes that an exec started and that outlive it. The exec is over when its own process ends, or when
/// its caller gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Descendants {
    /// They keep running, and the exec lasts while they hold its outputs open: an administrator's exec.
    #[default]
    Stay,
    /// They keep running after a normal end and are killed when the caller gives up: a lifecycle hook. The exec does
    /// not wait for its outputs.
    EndIfGivenUp,
    /// They are killed when the exec is over: a probe. The exec does not wait for its outputs.
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

/// Pipe ends for a process; the backend owns them from the call on. The backend reads `stdin` to its end and closes the
/// outputs when the process has written everything.
#[derive(Debug, Default)]
pub struct ExecStdio {
    /// Source of the process's input; `None` is an empty input.
    pub stdin: Option<OwnedFd>,
    /// Destination of the process's output; `None` discards it.
    pub stdout: Option<OwnedFd>,
    /// Destination of the process's error output; `None` discards it.
    pub stderr: Option<OwnedFd>,
}

/// Exit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, 128 + signal for a signal.
    pub code: i32,
}
