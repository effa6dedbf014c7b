//! Limits on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::Limit;

// Files.

/// Maximum size of a manifest file, bytes: the API server takes only far smaller ones (R-FILE-12). A larger one is
/// refused, and its last good content stays in force.
pub(crate) const MANIFEST: Limit = Limit::new("manifest file", MAX_MANIFEST as u64 - 1);

/// Maximum size of a file that the agent has written for itself, bytes, e.g. the record of a pod, for which an earlier
/// version escaped a whole manifest file as JSON. A larger one is none of the agent's: it counts as one that cannot be
/// read.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the agent", 64 << 20);

/// Maximum size of the node's `/etc/hosts`, `/etc/hostname` and `resolv.conf`, which pods are given, bytes: lists of
/// blocked hosts have some MiB. With a larger one pods do not start.
pub(crate) const NODE_FILE: Limit = Limit::new("network file of the node", 16 << 20);

/// Maximum size of a file of variables for `fileKeyRef`, which a container can write, bytes: a kubelet's limit. A
/// container that wants a variable of a larger one does not start.
pub(crate) const ENV_FILE: Limit = Limit::new("file of variables", 1 << 20);

/// Maximum size of a file of settings that an administrator writes, bytes, e.g. headers for a URL or a kubelet's
/// configuration. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

// Volumes and pods.

/// Maximum size of the files of all configMap, secret, downwardAPI and projected volumes of a pod together, bytes: most
/// of them are in memory, and a short manifest can name one key by hundreds of paths. A kubelet has no such limit. An
/// API server takes objects of 1 MiB, so this is more than sixty of the largest. A volume that exceeds it is not
/// mounted, and its pod waits.
pub(crate) const POD_FILES: Limit = Limit::new("files of a pod's volumes", 64 << 20);

// Texts, probes and hooks.

/// Maximum length of a path, bytes: the kernel's (`PATH_MAX`). A container with a `subPathExpr` that expands to more
/// does not start.
pub(crate) const PATH: Limit = Limit::new("path", 4 << 10);

/// Maximum length of a string in a program's environment and arguments, `NAME=`, value and end included, bytes: the
/// kernel's (execve(2): 32 pages). A container with a longer one does not start, and the error says which.
pub(crate) const ARGUMENT: Limit = Limit::new("environment variable or argument", 128 << 10);

/// Maximum size of environment and arguments together, bytes: the kernel's (execve(2): three quarters of 8 MiB). A
/// container with more does not start: variables that refer to others multiply.
pub(crate) const ARGUMENTS: Limit = Limit::new("environment and arguments", 6 << 20);

/// Maximum size of the head of an answer to a probe, a hook or a fetch of manifests, bytes. Go's client takes 10 MiB by
/// default; no server needs a tenth of that. Beyond it the request has failed.
pub(crate) const ANSWER_HEAD: Limit = Limit::new("head of an HTTP answer", 1 << 20);

/// Maximum number of headers of such an answer. Go does not count them; our client allocates room for all of them
/// beforehand.
pub(crate) const ANSWER_HEADERS: Limit = Limit::new("headers of an HTTP answer", 8192);

/// Maximum size of the headers and trailers of a gRPC server's answer, bytes: enough for grpc-go's health client.
/// Beyond it the probe has failed.
pub(crate) const GRPC_HEADERS: Limit = Limit::new("headers of a gRPC answer", 16 << 10);

// Listeners and logs.

/// Maximum size of one stream's output that `logs` holds back while a line of the other stream has no end, bytes, so
/// that neither line is cut in two. Beyond it the output is shown anyway, as kubectl does at once.
pub(crate) const HELD_OUTPUT: Limit = Limit::new("output held for a whole line", 1 << 20);

/// Maximum size of the head of a request to the agent, bytes: more than any of ours has, `exec` of a long command line
/// included.
pub(crate) const REQUEST_HEAD: Limit = Limit::new("head of a request", 256 << 10);

/// Maximum number of connections to the local API at once. Beyond it the oldest that has asked nothing yet is closed,
/// else the oldest whose answer takes more than a minute; if there is none, the new one is refused.
pub(crate) const API_CONNECTIONS: Limit = Limit::new("connections to the local API", 384);

/// Maximum number of answers of the local API that go on: `logs`, `exec`, and `get` and `events` with `--watch`. One
/// more is refused.
pub(crate) const API_STREAMS: Limit = Limit::new("logs, execs and watches at once", 256);

/// Maximum number of connections to `agent.health_address` at once, as for the local API.
pub(crate) const HEALTH_CONNECTIONS: Limit = Limit::new("connections to the health endpoint", 64);

/// Maximum number of answers of the health endpoint that go on: it has none.
pub(crate) const HEALTH_STREAMS: Limit = Limit::new("streams of the health endpoint", 0);
