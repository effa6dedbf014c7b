//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

/// Minimum bytes of a blob per minute of waiting for the registry: a kilobyte a second, less than the slowest lines
/// give each of three transfers. A slower pull fails and is tried again later.
pub(crate) const SLOWEST: Limit = Limit::new("bytes of a blob in a minute", 64 << 10);
/// Answer of a token server, bytes; the limit of Podman and CRI-O (`containers/image`, `MaxAuthTokenBodySize`). A
/// larger one is refused.
pub(crate) const TOKEN: Limit = Limit::new("answer of a token server", 1 << 20);
/// Registry's answer to `GET /v2/` without credentials, bytes. The rest is not read.
pub(crate) const GREETING: Limit = Limit::new("greeting of a registry", 64 << 10);
/// Text of a registry's error answer, bytes, as containerd reads it. The rest is not read.
pub(crate) const REFUSAL: Limit = Limit::new("refusal of a registry", 64 << 10);
/// Certificate or key that the settings name, bytes; the bundle of all public authorities has some 300 KiB. A larger
/// one is refused.
pub(crate) const CERTIFICATES: Limit = Limit::new("certificates of a registry", 16 << 20);

// Files.

/// File that this library has written itself, e.g. a pod's address lease or attachment, or containerd's record of a
/// container. A larger one counts as unreadable.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the backend", 64 << 20);

/// Settings file of an administrator: a CNI configuration list, a seccomp profile. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

/// Number of `VOLUME`s of an image: each is a snapshot and a mount. A container of an image with more does not start.
pub(crate) const VOLUMES: Limit = Limit::new("volumes of an image", 64);
/// Depth of the directories in an image's `VOLUME`, levels: each takes descriptors during the copy. A container with
/// deeper ones does not start.
pub(crate) const VOLUME_DEPTH: Limit = Limit::new("levels of directories in an image's volume", 200);
/// Value of an extended attribute, or the list of their names: Linux allows no more (xattr(7)).
pub(crate) const ATTRIBUTE: Limit = Limit::new("extended attribute", 64 << 10);

// Network.

/// Answer of a CNI plugin, or its error message: a result is a few KiB. A longer one fails its call.
pub(crate) const CNI_ANSWER: Limit = Limit::new("answer of a CNI plugin", 4 << 20);

/// Names of the tables of iptables, the kernel's old packet filter, one word each: there are five.
pub(crate) const IPTABLES_TABLES: Limit = Limit::new("names of iptables' tables", 4096);
/// Kernel parameter of the network: a number, bytes.
pub(crate) const PARAMETER: Limit = Limit::new("kernel parameter", 4096);

/// Output of `nft` or `iptables`, bytes: other people's tables can have sets of a hundred thousand addresses. A program
/// that prints more fails.
pub(crate) const FILTER_OUTPUT: Limit = Limit::new("output of nft or iptables", 64 << 20);
