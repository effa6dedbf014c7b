//! Volumes, and where they are mounted.

use std::path::PathBuf;

use super::{PullPolicy, Value};
use crate::ObjectKey;

/// A volume, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeMount {
    /// Name of the volume; exists in the pod.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// `readOnly`.
    pub read_only: bool,
    /// The part of the volume that is mounted.
    pub sub_path: Option<SubPath>,
    /// Whether later mounts below it are seen on the other side.
    pub propagation: Propagation,
    /// Whether what is mounted below it is read-only too.
    pub recursive_read_only: RecursiveReadOnly,
}

/// The part of a volume that is mounted: relative, without `..`.
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

/// Where a volume's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    /// A path of the node.
    HostPath {
        /// Absolute, without `..`.
        path: PathBuf,
        /// What must be there, or is made.
        kind: HostPathKind,
    },
    /// A directory that lives as long as the pod.
    EmptyDir {
        /// What it is on.
        medium: Medium,
        /// The most that may be in it, bytes.
        size_limit: Option<u64>,
    },
    /// Files made of objects and of the pod itself, which follow their changes.
    Projected(Projected),
    /// A directory that outlives the pod: a PersistentVolumeClaim.
    Claim {
        /// The claim.
        claim: ObjectKey,
        /// Whether it is only read.
        read_only: bool,
    },
    /// The files of an image, which are only read and never run (R-VOL-11).
    Image {
        /// Image reference as the user wrote it.
        reference: String,
        /// When the image is fetched.
        pull_policy: PullPolicy,
    },
}

impl Volume {
    /// The objects that its content is made of, and whether each may be missing.
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

/// A volume of files that the agent writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    /// Which kind of volume it is in the manifest.
    pub kind: ProjectedKind,
    /// What its files are made of; of two with one path the later wins.
    pub sources: Vec<Projection>,
    /// Mode of the files that have none of their own.
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

/// What files are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projection {
    /// A ConfigMap or Secret.
    Object {
        /// The object.
        object: ObjectKey,
        /// The keys that are wanted; `None` is all of them, each as a file of its name.
        items: Option<Vec<Item>>,
        /// Whether the object, or a key of `items`, may be missing.
        optional: bool,
    },
    /// The pod itself.
    Downward(Vec<DownwardFile>),
}

/// A key as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: String,
    /// Relative, without `..`.
    pub path: String,
    /// Mode of the file, if it has one of its own.
    pub mode: Option<u32>,
}

/// Something about the pod as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownwardFile {
    /// Relative, without `..`.
    pub path: String,
    /// Mode of the file, if it has one of its own.
    pub mode: Option<u32>,
    /// Its content: literal, or a limit.
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
    /// A directory of the agent's.
    Disk,
    /// tmpfs.
    Memory,
    /// hugetlbfs.
    HugePages {
        /// Bytes of one page; `None` is the only size that the pod asks for.
        page: Option<u64>,
    },
}

/// Whose the files of a pod's volumes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsGroup {
    /// The group.
    pub id: u32,
    /// `fsGroupChangePolicy: OnRootMismatch`: a volume whose root is right is left as it is.
    pub on_root_mismatch: bool,
}
