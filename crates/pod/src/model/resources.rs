//! Requests and limits of a pod and its containers.

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
    /// Ephemeral storage request, bytes.
    pub ephemeral_storage_request: Option<u64>,
    /// Ephemeral storage limit, bytes: files and logs on the node's disk.
    pub ephemeral_storage_limit: Option<u64>,
    /// Limits of huge pages: total bytes, by the bytes of one page.
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
    /// Returns Kubernetes' name of the class.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}
