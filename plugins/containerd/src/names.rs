//! Ids and labels in containerd.

use stanchion_network::namespaces::Own;
use stanchion_sdk::runtime::IdRange;

pub(crate) use stanchion_sdk::names::{id, is_identifier};

/// Kind of a record: `sandbox` or `container`.
pub(crate) const KIND: &str = "stanchion.dev/kind";
/// Attempt of a sandbox or container.
pub(crate) const ATTEMPT: &str = "stanchion.dev/attempt";
/// Sandbox of a container.
pub(crate) const SANDBOX: &str = "stanchion.dev/sandbox";
/// Name of a container in its pod.
pub(crate) const NAME: &str = "stanchion.dev/name";
/// Addresses of a sandbox, comma-separated; set once its network is ready.
pub(crate) const ADDRESSES: &str = "stanchion.dev/addresses";
/// Whether a sandbox is complete: `true`.
pub(crate) const READY: &str = "stanchion.dev/ready";
/// Network of a sandbox: `pod` or `host`.
pub(crate) const NETWORK: &str = "stanchion.dev/network";
/// IPC of a sandbox: `pod` or `host`.
pub(crate) const IPC: &str = "stanchion.dev/ipc";
/// PID namespace of a sandbox's containers: `container`, `pod` or `host`.
pub(crate) const PID: &str = "stanchion.dev/pid";
/// UIDs/GIDs on the node of a sandbox with its own user namespace: the first and how many; absent without one.
pub(crate) const USERS: &str = "stanchion.dev/users";
/// Cgroup: of a pod, below Stanchion's root; of a container, from the root of the hierarchy.
pub(crate) const CGROUP: &str = "stanchion.dev/cgroup";
/// Host name of a sandbox.
pub(crate) const HOSTNAME: &str = "stanchion.dev/hostname";
/// Digest of a container's image.
pub(crate) const IMAGE_DIGEST: &str = "stanchion.dev/image-digest";
/// Snapshot of a container's image, the parent of its own.
pub(crate) const LAYERS: &str = "stanchion.dev/layers";
/// URI of the logger for a container's output; empty for none.
pub(crate) const LOG: &str = "stanchion.dev/log";
/// Whether a container has a terminal: `true`.
pub(crate) const TERMINAL: &str = "stanchion.dev/terminal";
/// FIFO of a container's standard input; absent for none.
pub(crate) const INPUT: &str = "stanchion.dev/input";
/// Signal that asks a container to stop.
pub(crate) const STOP_SIGNAL: &str = "stanchion.dev/stop-signal";
/// Start time of a container; absent until then.
pub(crate) const STARTED: &str = "stanchion.dev/started";
/// Present if the kernel killed a process of a container for lack of memory.
pub(crate) const OUT_OF_MEMORY: &str = "stanchion.dev/oom-killed";

/// Annotations of a container's OCI configuration: its labels, and those of its sandbox, as JSON. They can be read
/// without containerd.
pub(crate) const RECORD: &str = "stanchion.dev/record";
pub(crate) const SANDBOX_RECORD: &str = "stanchion.dev/sandbox-record";

/// Annotation of a container's OCI configuration: its volumes, as JSON.
pub(crate) const VOLUMES: &str = "stanchion.dev/image-mounts";

/// Prefix of the labels by which a record keeps snapshots from containerd's garbage collection. The snapshotter
/// follows, and a name.
pub(crate) const KEPT_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// Prefix of the labels that name the images mounted in a container, by reference. A number follows.
pub(crate) const MOUNTED_IMAGE: &str = "stanchion.dev/mounted-image-";

/// All of Stanchion's own labels, which are not among the caller's.
pub(crate) const OURS: [&str; 20] = [
    KIND,
    ATTEMPT,
    SANDBOX,
    NAME,
    ADDRESSES,
    READY,
    NETWORK,
    IPC,
    PID,
    USERS,
    CGROUP,
    HOSTNAME,
    IMAGE_DIGEST,
    LAYERS,
    LOG,
    TERMINAL,
    INPUT,
    STOP_SIGNAL,
    STARTED,
    OUT_OF_MEMORY,
];

/// Formats a range of users as the label [`USERS`].
pub(crate) fn note_users(IdRange { first, length }: IdRange) -> String {
    format!("{first}+{length}")
}

/// Parses the range of the label [`USERS`].
pub(crate) fn noted_users(label: Option<&String>) -> Option<IdRange> {
    let (first, length) = label?.split_once('+')?;
    Some(IdRange { first: first.parse().ok()?, length: length.parse().ok()? })
}

/// Reads a sandbox's own namespaces from the labels of its record.
pub(crate) fn noted_own<'a>(label: impl Fn(&str) -> Option<&'a String>) -> Own {
    let is_own = |name: &str| label(name).is_none_or(|it| it != "host");
    Own { network: is_own(NETWORK), ipc: is_own(IPC), users: noted_users(label(USERS)) }
}
