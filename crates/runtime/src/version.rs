//! What a backend is and can do.

use serde::{Deserialize, Serialize};

/// Which runtime stands behind a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Name of the runtime as container ids are prefixed, e.g. `containerd` (`containerd://…`).
    pub runtime: String,
    /// Its version, e.g. `1.6.20`.
    pub runtime_version: String,
    /// What this backend can do beyond the contract's minimum.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// Optional abilities of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Container output is written to `log_path` as CRI log lines.
    pub log_files: bool,
    /// `import_images` works.
    pub import: bool,
    /// Processes of a pod can share one PID namespace.
    pub shared_pid_namespace: bool,
    /// Pods can have users of their own: [`SandboxConfig::user_namespace`](crate::SandboxConfig::user_namespace). The agent asks
    /// for it of no other backend.
    pub user_namespaces: bool,
    /// Containers can have images mounted: [`Mount::image`](crate::Mount::image). The agent asks for it of no other backend.
    pub image_mounts: bool,
}
