//! Labels that store the agent's state on the node itself: every sandbox and container names its pod.
//!
//! The agent sets them on every sandbox and container; a backend stores and reports them unread. The first four are the
//! keys of kubelet and its tools, so that `ctr`, `crictl` and `docker` users find their way.

/// Name of the pod, node suffix included.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// UID of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Revision: hash of the user's document behind this sandbox or container.
pub const REVISION: &str = "stanchion.dev/revision";
/// Grace period of the pod, whole seconds: the agent stops the pod with it when the manifest is gone.
pub const GRACE_SECONDS: &str = "stanchion.dev/grace-seconds";
/// Back-off, whole seconds, from the end of this container to the next restart.
pub const BACKOFF_SECONDS: &str = "stanchion.dev/backoff-seconds";
/// Start of the pod, RFC 3339, from which its `activeDeadlineSeconds` counts. Each new sandbox of the pod copies it
/// from the one before.
pub const STARTED_AT: &str = "stanchion.dev/started-at";
