//! What a container is made from.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{SandboxId, Security, is_default};

/// One container of a pod. The agent has resolved everything that is the same on every runtime (volumes, environment,
/// resource arithmetic); what the image says is merged in by the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// The sandbox it runs in.
    pub sandbox: SandboxId,
    /// Name in the pod; with sandbox and `attempt` it identifies the container.
    pub name: String,
    /// How many containers of this name the pod had before: the restart count.
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
    /// Added to the image's environment; a name given here wins.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Replaces the image's working directory. Absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What is mounted, in order.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Limits and weights of its cgroup.
    #[serde(default)]
    pub resources: LinuxResources,
    /// Who it runs as, and what it may do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub security: Security,
    /// Its standard streams are a terminal.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Its standard input stays open, though nobody writes to it yet; else it is at its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin: bool,
    /// The input ends with the first that was attached to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stdin_once: bool,
    /// Absolute path of the CRI log file to write on the node. Backends without log files ignore it.
    #[serde(default)]
    pub log_path: PathBuf,
    /// Kept with the container and reported by `list`; see [`labels`](crate::labels).
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
    /// Absolute path on the node; exists. Empty where an image is mounted.
    pub source: PathBuf,
    /// Absolute path in the container.
    pub destination: PathBuf,
    /// Mounted read-only.
    #[serde(default)]
    pub read_only: bool,
    /// How mounts below it travel.
    #[serde(default)]
    pub propagation: MountPropagation,
    /// Whether what is mounted below it is read-only too; only with `read_only`.
    #[serde(default)]
    pub recursive_read_only: RecursiveReadOnly,
    /// The image that is mounted, if it is no path of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageMount>,
}

/// The files of an image, mounted in a container of another: read-only whatever [`Mount::read_only`] says, and without
/// the right to run anything of it (`noexec`, R-VOL-11).
///
/// The container has these files as they were when it was created, though the image be removed or its name moved, and
/// nothing of it is left when the container has been removed. Only for backends with
/// [`Capabilities::image_mounts`](crate::Capabilities::image_mounts); others refuse it with
/// [`Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Full reference of an image that is present; if it is not, creating the container fails with
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub reference: String,
    /// The directory or file in the image that is mounted: relative, without `..`; empty is all of it. Links on the way are
    /// followed as they are inside the image and never lead out of it. Where there is nothing, creating the container fails
    /// with [`Invalid`](crate::ErrorKind::Invalid).
    #[serde(default, skip_serializing_if = "is_default")]
    pub sub_path: PathBuf,
}

impl Mount {
    /// A mount that can be written to and keeps to itself.
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

    /// A mount of an image.
    pub fn of_image(image: ImageMount, destination: impl Into<PathBuf>) -> Self {
        Self { read_only: true, image: Some(image), ..Self::new("", destination) }
    }
}

/// How far down a read-only mount is read-only. A backend that cannot make mounts below it read-only answers `Enabled`
/// with [`Unsupported`](crate::ErrorKind::Unsupported), and takes `IfPossible` for `Disabled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RecursiveReadOnly {
    /// Mounts below it stay as they are.
    #[default]
    Disabled,
    /// They are read-only too where the backend can do that.
    IfPossible,
    /// They are read-only too.
    Enabled,
}

/// Whether later mounts below a mount are seen on the other side.
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
    /// Preference of the kernel's out-of-memory killer, −1000 to 1000; the backend uses the nearest value the node allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// The most processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// Huge pages, by their size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
}

/// How much may be had in huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// Size of a page as the kernel's cgroups name it: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes in all.
    pub limit: u64,
}
