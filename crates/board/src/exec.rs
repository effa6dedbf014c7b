//! Defines the request of an exec.

use serde::{Deserialize, Serialize};
use stanchion_runtime::TerminalSize;

/// Header of the request, which has [`ExecOptions`] as JSON.
pub const HEADER: &str = "x-stanchion-exec";

/// Options of an exec, as JSON in the header [`HEADER`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecOptions {
    /// Name of the container; by default the first container's.
    #[serde(default)]
    pub container: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `true` if the client sends input.
    #[serde(default)]
    pub stdin: bool,
    /// `true` if the process gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Size of the terminal.
    #[serde(default)]
    pub size: Option<TerminalSize>,
}
