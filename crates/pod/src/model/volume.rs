//! Volumes and their mounts.

use std::path::PathBuf;

use super::{PullPolicy, Value};
use crate::ObjectKey;

/// Mount of a volume in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Name of the volume, which exists in the pod.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// `readOnly`.
    pub read_only: bool,
    /// `subPath` or `subPathExpr`: part of the volume that is mounted.
    pub sub_path: Option<SubPath>,
    /// `mountPropagation`: it decides whether later mounts below it appear on the other side.
    pub propagation: Propagation,
    /// `recursiveReadOnly`: it decides whether mounts below it are read-only too.
    pub recursive_read_only: RecursiveReadOnly,
}

/// Part of a volume that is mounted: relative, without `..`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubPath {
    /// `subPath`
    Path(String),
    /// `subPathExpr`: `$(NAME)` in it is expanded when the container starts; all names must be known.
    Expression(String),
}

/// `mountPropagation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

/// `recursiveReadOnly`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum RecursiveReadOnly {
    #[default]
    Disabled,
    IfPossible,
    Enabled,
}

/// Source of a volume's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// `hostPath`: a path of the node.
    HostPath {
        /// Absolute, without `..`.
        path: PathBuf,
        /// `type`: the entry that must exist at the path, or is created.
        kind: HostPathKind,
    },
    /// `emptyDir`: a directory that exists as long as the pod.
    EmptyDir {
        /// `medium`.
        medium: Medium,
        /// `sizeLimit`, bytes.
        size_limit: Option<u64>,
    },
    /// Files that the agent writes from objects and from the pod itself, and updates when these change.
    Projected(Projected),
    /// `persistentVolumeClaim`: a directory that outlives the pod.
    Claim {
        /// Key of the claim.
        claim: ObjectKey,
        /// `readOnly`.
        read_only: bool,
    },
    /// `image`: files of an image, which are only read and never run (R-VOL-11).
    Image {
        /// Image reference as the user wrote it.
        reference: String,
        /// `pullPolicy`.
        pull_policy: PullPolicy,
    },
}

impl Volume {
    /// Returns the objects that its files are made of, and whether each is optional.
    pub(super) fn mentions(&self) -> impl Iterator<Item = (&ObjectKey, bool)> {
        let (sources, claim) = match self {
            Self::Projected(projected) => (projected.sources.as_slice(), None),
            Self::Claim { claim, .. } => (&[][..], Some(claim)),
            Self::HostPath { .. } | Self::EmptyDir { .. } | Self::Image { .. } => (&[][..], None),
        };
        let objects = sources.iter().filter_map(|source| match source {
            Projection::Object { object, optional, .. } => Some((object, *optional)),
            Projection::Downward(_) => None,
        });
        objects.chain(claim.map(|claim| (claim, false)))
    }
}

/// Volume of files that the agent writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    /// Kind of the volume in the manifest.
    pub kind: ProjectedKind,
    /// Sources of its files; of two files with one path the later wins.
    pub sources: Vec<Projection>,
    /// `defaultMode`: mode of files without a mode of their own.
    pub default_mode: u32,
}

/// Kinds of volumes of files that the agent writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum ProjectedKind {
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
}

/// Source of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Files of a ConfigMap or Secret.
    Object {
        /// ConfigMap or Secret.
        object: ObjectKey,
        /// `items`: keys that become files; `None` is all of them, each as a file of its name.
        items: Option<Vec<Item>>,
        /// `true`: the object, or a key of `items`, may be missing.
        optional: bool,
    },
    /// `downwardAPI`: files of the pod's own fields.
    Downward(Vec<DownwardFile>),
}

/// Key of an object that becomes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Key in the object.
    pub key: String,
    /// Path of the file: relative, without `..`.
    pub path: String,
    /// Mode of the file, if it has one of its own.
    pub mode: Option<u32>,
}

/// Field of the pod that becomes a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownwardFile {
    /// Path of the file: relative, without `..`.
    pub path: String,
    /// Mode of the file, if it has one of its own.
    pub mode: Option<u32>,
    /// Content of the file: literal, or a limit.
    pub value: Value,
}

/// `hostPath.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum HostPathKind {
    Unset,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// `emptyDir.medium`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// Directory of the agent on disk.
    Disk,
    /// tmpfs.
    Memory,
    /// hugetlbfs.
    HugePages {
        /// Bytes of one page; `None` is the only size that the pod requests.
        page: Option<u64>,
    },
}

/// Group that owns the files of a pod's volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    /// GID.
    pub id: u32,
    /// `fsGroupChangePolicy: OnRootMismatch`: a volume stays as it is if its root directory is right.
    pub on_root_mismatch: bool,
}
