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
