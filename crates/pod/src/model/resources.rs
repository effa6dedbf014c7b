//! What a pod and its containers ask for, and may have.

use std::collections::BTreeMap;

/// Requests and limits of a container or pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU request, millicores.
    pub cpu_request: Option<u64>,
    /// CPU limit, millicores.
    pub cpu_limit: Option<u64>,
    /// Memory request, bytes.
    pub memory_request: Option<u64>,
    /// Memory limit, bytes.
    pub memory_limit: Option<u64>,
    /// Request of room on the node's disk, bytes.
    pub ephemeral_storage_request: Option<u64>,
    /// The most that its files and logs may take of the node's disk, bytes.
    pub ephemeral_storage_limit: Option<u64>,
    /// Limits of huge pages: bytes in all, by the bytes of one page.
    pub hugepages: BTreeMap<u64, u64>,
}

/// Kubernetes' quality-of-service class (R-RES-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}
