//! The request of an exec.

use serde::{Deserialize, Serialize};
use stanchion_runtime::TerminalSize;

/// Header of the request that has [`ExecOptions`] as JSON.
pub const HEADER: &str = "x-stanchion-exec";

/// Options of an exec, as JSON in the header [`HEADER`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ExecOptions {
    /// The container; by default the first.
    #[serde(default)]
    pub container: Option<String>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `true`: the client sends input.
    #[serde(default)]
    pub stdin: bool,
    /// `true`: the process gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Size of the terminal.
    #[serde(default)]
    pub size: Option<TerminalSize>,
}
