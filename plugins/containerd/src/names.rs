//! Ids and labels in containerd.

use sha2::{Digest, Sha256};

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
/// Signal that asks a container to stop.
pub(crate) const STOP_SIGNAL: &str = "stanchion.dev/stop-signal";
/// When a container was started; absent until then.
pub(crate) const STARTED: &str = "stanchion.dev/started";
/// Set when the kernel killed a process of a container for lack of memory.
pub(crate) const OUT_OF_MEMORY: &str = "stanchion.dev/oom-killed";

/// All of them: not among the labels that were given.
pub(crate) const OURS: [&str; 15] = [
    KIND,
    ATTEMPT,
    SANDBOX,
    NAME,
    ADDRESSES,
    READY,
    NETWORK,
    CGROUP,
    HOSTNAME,
    IMAGE_DIGEST,
    LAYERS,
    LOG,
    STOP_SIGNAL,
    STARTED,
    OUT_OF_MEMORY,
];

/// An id that says what it is and is the same for the same parts: containerd refuses a second one. containerd allows 76
/// characters, letters, digits and single separators.
pub(crate) fn id(name: &str, parts: &[&str], attempt: u32) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.update(attempt.to_le_bytes());
    let hash: String = hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let mut plain = String::with_capacity(40);
    for char in name.chars().take(40) {
        let char = if char.is_ascii_alphanumeric() { char } else { '-' };
        if char != '-' || !plain.ends_with('-') && !plain.is_empty() {
            plain.push(char);
        }
    }
    match plain.trim_end_matches('-') {
        "" => format!("{attempt}-{hash}"),
        plain => format!("{plain}-{attempt}-{hash}"),
    }
}

#[cfg(test)]
mod tests {
    use super::id;
    use crate::config::is_identifier;

    #[test]
    fn ids_are_what_containerd_allows() {
        let first = id("my--app.example", &["uid", "my--app.example"], 0);
        assert!(first.starts_with("my-app-example-0-"), "{first}");
        assert_ne!(first, id("my--app.example", &["uid2", "my--app.example"], 0));
        for name in ["my--app.example", "-", "a-", "", "ä.ö", &"x".repeat(253)] {
            let id = id(name, &["uid"], 4_000_000_000);
            assert!(is_identifier(&id), "{name:?} became {id:?}");
        }
    }
}
