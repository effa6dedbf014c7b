//! Bounds on input from others, each with its reason. `docs/limits.md` lists them all.

use stanchion_untrusted::Limit;

// Files.

/// File that this library has written itself, e.g. a pod's address lease or attachment. A larger one counts as
/// unreadable.
pub(crate) const OWN_FILE: Limit = Limit::new("file of the backend", 64 << 20);

/// Settings file of an administrator: a CNI configuration list. A larger one is refused.
pub(crate) const SETTINGS_FILE: Limit = Limit::new("file of settings", 4 << 20);

// Programs and the kernel.

/// Answer of a CNI plugin, or its error message: a result is a few KiB. A longer one fails its call.
pub(crate) const CNI_ANSWER: Limit = Limit::new("answer of a CNI plugin", 4 << 20);

/// Names of the tables of iptables, the kernel's old packet filter, one word each: there are five.
pub(crate) const IPTABLES_TABLES: Limit = Limit::new("names of iptables' tables", 4096);
/// Kernel parameter of the network: a number, bytes.
pub(crate) const PARAMETER: Limit = Limit::new("kernel parameter", 4096);

/// Output of `nft` or `iptables`, bytes: other people's tables can have sets of a hundred thousand addresses. A program
/// that prints more fails.
pub(crate) const FILTER_OUTPUT: Limit = Limit::new("output of nft or iptables", 64 << 20);
