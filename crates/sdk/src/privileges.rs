//! Privileges that this node can give.

use stanchion_runtime::CAPABILITIES;
use stanchion_untrusted::read_kernel;

/// Returns the nearest `oom_score_adj` that this node allows: without `CAP_SYS_RESOURCE` a process cannot go below its
/// own.
#[must_use]
pub fn oom_score_adj(wanted: i32) -> i32 {
    const SYS_RESOURCE: u64 = 1 << 24;
    if own_capabilities("CapEff:") & SYS_RESOURCE != 0 {
        return wanted;
    }
    let own = read_kernel("/proc/self/oom_score_adj").ok().and_then(|own| own.trim().parse().ok());
    let allowed = wanted.max(own.unwrap_or(0));
    if allowed != wanted {
        tracing::debug!(wanted, allowed, "this node does not allow the oom_score_adj");
    }
    allowed
}

/// Returns the capabilities, without `CAP_`, that processes on this node can have: not all if the node is itself a
/// container.
#[must_use]
pub fn capabilities() -> Vec<&'static str> {
    let bounding = own_capabilities("CapBnd:");
    CAPABILITIES
        .into_iter()
        .zip(0..)
        .filter(|(_, number)| bounding & (1 << number) != 0)
        .map(|(name, _)| name)
        .collect()
}

/// Returns whether the node lacks some of the capabilities that its kernel knows.
#[must_use]
pub fn lacks_capabilities() -> bool {
    let last = read_kernel("/proc/sys/kernel/cap_last_cap").ok().and_then(|last| last.trim().parse::<usize>().ok());
    let known = last.map_or(CAPABILITIES.len(), |last| CAPABILITIES.len().min(last + 1));
    capabilities().len() < known
}

/// Returns one of this process's capability sets; empty if it cannot be read.
fn own_capabilities(set: &str) -> u64 {
    let status = read_kernel("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix(set));
    found.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}
