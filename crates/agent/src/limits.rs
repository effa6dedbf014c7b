//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_pod::MAX_MANIFEST;
use stanchion_untrusted::Limit;

// Files.

/// A manifest file: what the API server takes is far smaller (R-FILE-12). A larger one is refused, and its last good content
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

/// What the files of one configMap, secret, downwardAPI or projected volume have together: some of it stands in memory, and a short
/// manifest can name one key by hundreds of paths. A kubelet has no such bound; an API server takes objects of 1 MiB, so that
/// this is more than sixty of the largest. A volume with more is not mounted, and its pod waits.
pub(crate) const VOLUME_FILES: Limit = Limit::new("files of a volume", 64 << 20);

// Texts, probes and hooks.

/// The kernel takes no longer path (`PATH_MAX`). A container with a `subPathExpr` that stands for more does not start.
pub(crate) const PATH: Limit = Limit::new("path", 4 << 10);

/// The kernel takes no longer string in a program's environment and arguments, `NAME=`, value and end included (execve(2): 32
/// pages). A container with a longer one does not start, and says which it is.
pub(crate) const ARGUMENT: Limit = Limit::new("environment variable or argument", 128 << 10);

/// The kernel takes no more environment and arguments together (execve(2): three quarters of 8 MiB). A container with more does
/// not start: variables that refer to others multiply.
pub(crate) const ARGUMENTS: Limit = Limit::new("environment and arguments", 6 << 20);

// Listeners and logs.
