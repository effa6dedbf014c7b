//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::Limit;

// Files.

/// A manifest file: the API server takes only far smaller ones (R-FILE-12). A larger one is refused, and its last good content
/// stays in force.
pub(crate) const MANIFEST: Limit = Limit::new("manifest file", MAX_MANIFEST as u64 - 1);

/// A file that the agent has written for itself, e.g. the record of a pod, which an earlier version made of a whole manifest
/// file in JSON's escapes. A larger one is none of the agent's: it counts as one that cannot be read.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the agent", 64 << 20);

/// `/etc/hosts`, `/etc/hostname` and `resolv.conf` of the node, which pods are given: lists of blocked hosts have some MiB.
/// With a larger one pods do not start.
pub(crate) const NODE_FILE: Limit = Limit::new("network file of the node", 16 << 20);

/// A file of variables for `fileKeyRef`, which a container can write; a kubelet's limit. The container that wants a variable
/// of a larger one does not start.
pub(crate) const ENV_FILE: Limit = Limit::new("file of variables", 1 << 20);

/// A file of settings that an administrator writes, e.g. headers for a URL or a kubelet's configuration. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

// Volumes and pods.

/// The files of all configMap, secret, downwardAPI and projected volumes of a pod together, bytes: most of them stand in memory,
/// and a short manifest can name one key by hundreds of paths. A kubelet has no such bound; an API server takes objects of 1 MiB,
/// so that this is more than sixty of the largest. A volume that goes beyond it is not mounted, and its pod waits.
pub(crate) const POD_FILES: Limit = Limit::new("files of a pod's volumes", 64 << 20);

// Texts, probes and hooks.

/// The kernel takes no longer path (`PATH_MAX`). A container with a `subPathExpr` that stands for more does not start.
pub(crate) const PATH: Limit = Limit::new("path", 4 << 10);

/// The kernel takes no longer string in a program's environment and arguments, `NAME=`, value and end included (execve(2): 32
/// pages). A container with a longer one does not start, and says which it is.
pub(crate) const ARGUMENT: Limit = Limit::new("environment variable or argument", 128 << 10);

/// The kernel takes no more environment and arguments together (execve(2): three quarters of 8 MiB). A container with more does
/// not start: variables that refer to others multiply.
pub(crate) const ARGUMENTS: Limit = Limit::new("environment and arguments", 6 << 20);

/// The message of an event, bytes, as the API server has it. Longer ones are cut.
pub(crate) const EVENT_MESSAGE: Limit = Limit::new("message of an event", 1024);

/// The reason of an event, bytes, as the API server has it. Longer ones are cut.
pub(crate) const EVENT_REASON: Limit = Limit::new("reason of an event", 128);

/// A message in the status of a pod, a source or a backend, bytes: as much as a kubelet takes of a termination message.
/// Longer ones are cut.
pub(crate) const STATUS_MESSAGE: Limit = Limit::new("message of a status", 4096);

/// The head of an answer to a probe, a hook or a fetch of manifests, bytes. Go's client takes 10 MiB by default; no server
/// means a tenth of that. Beyond it the request has failed.
pub(crate) const ANSWER_HEAD: Limit = Limit::new("head of an HTTP answer", 1 << 20);

/// The number of headers of such an answer, which Go does not count; our client makes room for all of them beforehand.
pub(crate) const ANSWER_HEADERS: Limit = Limit::new("headers of an HTTP answer", 8192);

/// The headers and trailers of a gRPC server's answer, bytes, as grpc-go's health client gets along with. Beyond it the probe
/// has failed.
pub(crate) const GRPC_HEADERS: Limit = Limit::new("headers of a gRPC answer", 16 << 10);

// Listeners and logs.

/// The output of one stream of a container while a line of its other stream has no end, bytes: `logs` holds it back so that
/// neither line is cut in two. Beyond that it is put out anyway, as kubectl does at once.
pub(crate) const HELD_OUTPUT: Limit = Limit::new("output held for a whole line", 1 << 20);

/// The head of a request to the agent, bytes: more than any of ours has, `exec` of a long command line included.
pub(crate) const REQUEST_HEAD: Limit = Limit::new("head of a request", 256 << 10);

/// Connections to the local API at once. Beyond that the oldest that has asked nothing yet is closed, else the oldest whose answer
/// takes more than a minute; if there is none, the new one is refused.
pub(crate) const API_CONNECTIONS: Limit = Limit::new("connections to the local API", 384);

/// Answers of the local API that go on: `logs`, `exec`, and `get` and `events` with `--watch`. One more is refused.
pub(crate) const API_STREAMS: Limit = Limit::new("logs, execs and watches at once", 256);

/// Connections to `agent.health_address` at once, as of the local API.
pub(crate) const HEALTH_CONNECTIONS: Limit = Limit::new("connections to the health endpoint", 64);

/// Answers of the health endpoint that go on: it has none.
pub(crate) const HEALTH_STREAMS: Limit = Limit::new("streams of the health endpoint", 0);
