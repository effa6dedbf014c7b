//! What this node allows.

use std::fs;

/// The nearest `oom_score_adj` that this node allows: without `CAP_SYS_RESOURCE` nobody can go below their own.
#[must_use]
pub fn oom_score_adj(wanted: i32) -> i32 {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    if effective & SYS_RESOURCE != 0 {
        return wanted;
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|own| own.trim().parse().ok());
    let allowed = wanted.max(own.unwrap_or(0));
    if allowed != wanted {
        tracing::debug!(wanted, allowed, "this node does not allow the oom_score_adj");
    }
    allowed
}

/// Capabilities in the order of their numbers (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capabilities that any process of this node can have, without `CAP_`: not all, where the node is itself a container.
#[must_use]
pub fn capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES
        .into_iter()
        .zip(0..)
        .filter(|(_, number)| bounding & (1 << number) != 0)
        .map(|(name, _)| name)
        .collect()
}

/// Whether the node lacks some of the capabilities that its kernel knows.
#[must_use]
pub fn lacks_capabilities() -> bool {
    let last =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|last| last.trim().parse::<usize>().ok());
    let known = last.map_or(CAPABILITIES.len(), |last| CAPABILITIES.len().min(last + 1));
    capabilities().len() < known
}
