//! Configuration of a container.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{SandboxId, Security, is_default};

/// Configuration of one container of a pod. The agent has resolved everything that is the same on every runtime
/// (volumes, environment, resource arithmetic); the backend merges in the image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Sandbox that the container runs in.
    pub sandbox: SandboxId,
    /// Name in the pod; with sandbox and `attempt` it identifies the container.
    pub name: String,
    /// Number of earlier containers of this name in the pod: the restart count.
    #[serde(default)]
    pub attempt: u32,
    /// Reference of an image that is present.
    pub image: String,
    /// Replaces the image's entrypoint; when set, the image's arguments are dropped too (as Kubernetes does).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Variables added to the image's environment; a name given here wins.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Replaces the image's working directory. Absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Mounts, in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Limits and weights of the container's cgroup.
    #[serde(default)]
    pub resources: LinuxResources,
    /// User, groups, capabilities and profiles of the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: Security,
    /// `true`: the standard streams are a terminal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// `true`: standard input stays open without a writer; `false`: reads see the end of input.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// `true`: standard input closes when the first attached client detaches (`stdinOnce`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// Absolute path of the CRI log file to write on the node. Backends without log files ignore it.
    #[serde(default)]
    pub log_path: PathBuf,
    /// Labels that the backend stores with the container and reports in `list`; see [`labels`](crate::labels).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name, without `=`.
    pub name: String,
    /// Value, taken literally.
    pub value: String,
}

/// A mount in a container: of a path on the node, or of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path on the node, which exists. Empty for a mount of an image.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// `true`: the mount is read-only.
    #[serde(default)]
    pub read_only: bool,
    /// Propagation of mounts that appear below this one later.
    #[serde(default)]
    pub propagation: MountPropagation,
    /// Access to mounts below this one; only with `read_only`.
    #[serde(default)]
    pub recursive_read_only: RecursiveReadOnly,
    /// Image to mount in place of a path on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageMount>,
}

/// An image mounted into a container of another image: read-only whatever [`Mount::read_only`] says, and without the
/// right to execute its files (`noexec`, R-VOL-11).
///
/// The container sees the files as they were when it was created, even if the image is removed or its reference moves.
/// Removing the container removes the mount completely. Only backends with
/// [`Capabilities::image_mounts`](crate::Capabilities::image_mounts) support it; others fail with
/// [`Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Full reference of an image that is present; otherwise creating the container fails with
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub reference: String,
    /// Directory or file in the image to mount: relative, without `..`; empty mounts the whole image. Symbolic links on
    /// the way resolve inside the image and never lead out of it. If the path does not exist, creating the container
    /// fails with [`Invalid`](crate::ErrorKind::Invalid).
    #[serde(default, skip_serializing_if = "is_default")]
    pub sub_path: PathBuf,
}

impl Mount {
    /// Returns a writable mount with private propagation.
    pub fn new(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            read_only: false,
            propagation: MountPropagation::Private,
            recursive_read_only: RecursiveReadOnly::Disabled,
            image: None,
        }
    }

    /// Returns a mount of an image.
    pub fn of_image(image: ImageMount, destination: impl Into<PathBuf>) -> Self {
        Self { read_only: true, image: Some(image), ..Self::new("", destination) }
    }
}

/// Depth of a read-only mount (`recursiveReadOnly`). A backend that cannot make mounts below it read-only answers
/// `Enabled` with [`Unsupported`](crate::ErrorKind::Unsupported), and treats `IfPossible` as `Disabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecursiveReadOnly {
    /// Mounts below it stay as they are.
    #[default]
    Disabled,
    /// Mounts below it are read-only too if the backend can do that.
    IfPossible,
    /// Mounts below it are read-only too.
    Enabled,
}

/// Mount propagation: it decides whether later mounts below a mount appear on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MountPropagation {
    /// Neither way (`rprivate`).
    #[default]
    Private,
    /// From the node into the container (`rslave`).
    HostToContainer,
    /// Both ways (`rshared`).
    Bidirectional,
}

/// cgroup settings, in the kernel's units. `None` leaves the kernel's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxResources {
    /// Relative CPU weight, 2 to 262144 (cgroup v1 scale).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// CPU time per period, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Length of the period, µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// Memory limit, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<i64>,
    /// Preference of the kernel's OOM killer, −1000 to 1000; the backend uses the nearest value that the node allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Maximum number of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Limits of huge pages, one per page size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
}

/// Limit of huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// Page size as the kernel's cgroups name it: `2MB`, `1GB`.
    pub page_size: String,
    /// Limit in bytes.
    pub limit: u64,
}
