//! Labels that make the node itself the agent's memory: what runs says whose it is.
//!
//! The agent puts them on every sandbox and container; a backend stores and reports them unread. The first four are the
//! keys that kubelet and its tools use, so that `ctr`, `crictl` and `docker` users find their way.

/// Name of the pod, node suffix included.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Namespace of the pod.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// UID of the pod.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Name of the container in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Revision: hash of the user's document that this was made from.
pub const REVISION: &str = "stanchion.dev/revision";
/// Grace period of the pod, whole seconds: how to stop it when its manifest is gone.
pub const GRACE_SECONDS: &str = "stanchion.dev/grace-seconds";
/// Back-off, whole seconds, that the next restart must observe, counted from the end of this container.
pub const BACKOFF_SECONDS: &str = "stanchion.dev/backoff-seconds";
/// When the pod's time began, RFC 3339: on its sandboxes, each of which carries it on from the one before.
pub const STARTED_AT: &str = "stanchion.dev/started-at";
