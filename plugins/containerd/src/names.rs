//! Ids and labels in containerd.

pub(crate) use stanchion_sdk::names::{id, is_identifier};

/// What a record stands for: `sandbox` or `container`.
pub(crate) const KIND: &str = "stanchion.dev/kind";
/// Attempt of a sandbox or container.
pub(crate) const ATTEMPT: &str = "stanchion.dev/attempt";
/// Sandbox of a container.
pub(crate) const SANDBOX: &str = "stanchion.dev/sandbox";
/// Name of a container in its pod.
pub(crate) const NAME: &str = "stanchion.dev/name";
/// Address of a sandbox; empty until its network is there.
pub(crate) const ADDRESSES: &str = "stanchion.dev/addresses";
/// Whether a sandbox was made to the end: `true`.
pub(crate) const READY: &str = "stanchion.dev/ready";
/// Network of a sandbox: `pod` or `host`.
pub(crate) const NETWORK: &str = "stanchion.dev/network";
/// IPC of a sandbox: `pod` or `host`.
pub(crate) const IPC: &str = "stanchion.dev/ipc";
/// Processes that a sandbox's containers see: `container`, `pod` or `host`.
pub(crate) const PID: &str = "stanchion.dev/pid";
/// The users on the node of a sandbox's and its containers' users: the first and how many; absent where they are the node's.
pub(crate) const USERS: &str = "stanchion.dev/users";
/// Cgroup of a pod below the root of ours; of a container, from the root of the hierarchy.
pub(crate) const CGROUP: &str = "stanchion.dev/cgroup";
/// Host name of a sandbox.
pub(crate) const HOSTNAME: &str = "stanchion.dev/hostname";
/// Digest of a container's image.
pub(crate) const IMAGE_DIGEST: &str = "stanchion.dev/image-digest";
/// The snapshot of its image, which a container's files begin with.
pub(crate) const LAYERS: &str = "stanchion.dev/layers";
/// Where a container's output is written; empty for nowhere.
pub(crate) const LOG: &str = "stanchion.dev/log";
/// Whether a container's streams are a terminal: `true`.
pub(crate) const TERMINAL: &str = "stanchion.dev/terminal";
/// Where a container's standard input comes from; absent for nowhere.
pub(crate) const INPUT: &str = "stanchion.dev/input";
/// Signal that asks a container to stop.
pub(crate) const STOP_SIGNAL: &str = "stanchion.dev/stop-signal";
/// When a container was started; absent until then.
pub(crate) const STARTED: &str = "stanchion.dev/started";
/// Set when the kernel killed a process of a container for lack of memory.
pub(crate) const OUT_OF_MEMORY: &str = "stanchion.dev/oom-killed";

/// In a container's OCI configuration: its labels, and those of its sandbox, as JSON. There they can be read without
/// containerd.
pub(crate) const RECORD: &str = "stanchion.dev/record";
pub(crate) const SANDBOX_RECORD: &str = "stanchion.dev/sandbox-record";

/// In a container's OCI configuration: what it has mounted of images, as JSON.
pub(crate) const VOLUMES: &str = "stanchion.dev/image-mounts";

/// What labels begin with by which a record keeps snapshots from containerd's garbage collection. The snapshotter follows,
/// and a name.
pub(crate) const KEPT_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// What labels begin with that tell which images a container has mounted, by reference. A number follows.
pub(crate) const MOUNTED_IMAGE: &str = "stanchion.dev/mounted-image-";

/// All of them: not among the labels that were given.
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
