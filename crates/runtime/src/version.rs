//! Version and capabilities of a backend.

use serde::{Deserialize, Serialize};

/// Name, version and capabilities of the runtime behind a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Name of the runtime, as in the prefix of container ids: `containerd` for `containerd://…`.
    pub runtime: String,
    /// Version of the runtime, e.g. `1.6.20`.
    pub runtime_version: String,
    /// Capabilities of this backend beyond the contract's minimum.
    #[serde(default)]
    pub capabilities: Capabilities,
}

/// Optional abilities of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// The runtime writes container output to `log_path` as CRI log lines.
    pub log_files: bool,
    /// `import_images` works.
    pub import: bool,
    /// The containers of a pod can share one PID namespace.
    pub shared_pid_namespace: bool,
    /// Pods can have their own user namespace: [`SandboxConfig::user_namespace`](crate::SandboxConfig::user_namespace).
    /// The agent requests one only from backends with this capability.
    pub user_namespaces: bool,
    /// Containers can mount images: [`Mount::image`](crate::Mount::image). The agent requests it only from backends
    /// with this capability.
    pub image_mounts: bool,
}
