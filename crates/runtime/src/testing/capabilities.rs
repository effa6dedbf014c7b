//! Capabilities by name and number (capabilities(7)), as `/proc/PID/status` shows sets of them.

/// In the order of their numbers.
const NAMES: [&str; 41] = [
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

/// Every one.
pub(super) const ALL: u64 = (1 << NAMES.len()) - 1;
/// What containers have that ask for nothing: the set of containerd and Docker.
pub(super) const USUAL: u64 = 0xa804_25fb;

/// The set of one name; `ALL` is every one.
pub(super) fn bits(name: &str) -> Option<u64> {
    match name {
        "ALL" => Some(ALL),
        name => NAMES.iter().position(|known| *known == name).map(|number| 1 << number),
    }
}
