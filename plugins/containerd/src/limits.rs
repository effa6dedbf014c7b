//! Bounds on what others can make large, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Registries.

/// The bytes of a blob that have to come in each minute that the registry is waited for: a kilobyte a second, less than the
/// slowest lines give to each of three transfers. A pull that gets less ends, and is tried again later.
pub(crate) const SLOWEST: Limit = Limit::new("bytes of a blob in a minute", 64 << 10);
/// A token server's answer, bytes, as Podman and CRI-O take it (`containers/image`, `MaxAuthTokenBodySize`). A larger one is
/// refused.
pub(crate) const TOKEN: Limit = Limit::new("answer of a token server", 1 << 20);
/// The answer of a registry that is asked what it wants to be shown, bytes. The rest is not read.
pub(crate) const GREETING: Limit = Limit::new("greeting of a registry", 64 << 10);
/// A refusal's text, bytes, as containerd reads it. The rest is not read.
pub(crate) const REFUSAL: Limit = Limit::new("refusal of a registry", 64 << 10);
/// A certificate or key that the settings name, bytes; the bundle of all public authorities has some 300 KiB. A larger one is
/// refused.
pub(crate) const CERTIFICATES: Limit = Limit::new("certificates of a registry", 16 << 20);

// Files.

/// A file that this library has written for itself, e.g. a lease or the attachment of a pod, or containerd's record of a container. A
/// larger one is none: it counts as one that cannot be read.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the backend", 64 << 20);

/// A file of settings that an administrator writes: a CNI configuration list, a seccomp profile. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

/// The volumes that an image declares: each is a snapshot and a mount. A container of an image with more does not start.
pub(crate) const VOLUMES: Limit = Limit::new("volumes of an image", 64);
/// The depth of the directories that an image has in a volume that it declares, in levels: each takes descriptors while it is
/// copied. A container with deeper ones does not start.
pub(crate) const VOLUME_DEPTH: Limit = Limit::new("levels of directories in an image's volume", 200);
/// The value of an extended attribute, and the list of their names: Linux takes no more (xattr(7)).
pub(crate) const ATTRIBUTE: Limit = Limit::new("extended attribute", 64 << 10);

// Network.

/// The answer of a CNI plugin, or its message about a failure: its result is a few KiB. A longer one fails its call.
pub(crate) const CNI_ANSWER: Limit = Limit::new("answer of a CNI plugin", 4 << 20);

/// The tables of the kernel's old packet filter, one word each: there are five.
pub(crate) const IPTABLES_TABLES: Limit = Limit::new("names of iptables' tables", 4096);
/// A kernel parameter of the network: a number.
pub(crate) const PARAMETER: Limit = Limit::new("kernel parameter", 4096);

/// The output of a program of the packet filter, bytes: other people's tables can have sets of a hundred thousand addresses. A
/// program that prints more fails.
pub(crate) const FILTER_OUTPUT: Limit = Limit::new("output of nft or iptables", 64 << 20);
