//! Cgroup values and OOM scores for a pod's requests and limits, by a kubelet's arithmetic (R-RES).

use stanchion_pod::{Container, Pod, QosClass, Resources};
use stanchion_runtime::{HugepageLimit, LinuxResources};

/// Resources of the node that cgroup values depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine<'a> {
    /// Memory, bytes.
    pub memory: u64,
    /// Sizes of huge pages, bytes.
    pub hugepage_sizes: &'a [u64],
}

/// Length of a CPU quota period, µs.
const CPU_PERIOD: u64 = 100_000;
/// Minimum of CPU shares, and of the CPU quota, µs.
const LEAST_SHARES: u64 = 2;
const LEAST_QUOTA: u64 = 1000;
/// `oom_score_adj` of pods of class Guaranteed and of class BestEffort.
const GUARANTEED: i64 = -997;
const BEST_EFFORT: i64 = 1000;

/// Returns the pod's cgroup below a backend's root, by QoS class (R-RES-2).
pub fn cgroup(pod: &Pod) -> String {
    match pod.qos {
        QosClass::Guaranteed => format!("pod{}", pod.uid),
        QosClass::Burstable => format!("burstable/pod{}", pod.uid),
        QosClass::BestEffort => format!("besteffort/pod{}", pod.uid),
    }
}

/// Returns limits and weights of the pod's cgroup (R-RES-13).
pub fn of_pod(pod: &Pod, pids_limit: Option<i64>, machine: Machine<'_>) -> LinuxResources {
    LinuxResources { pids_limit, ..numbers(&pod.total, machine) }
}

/// Returns limits and weights of a container. The pod's `spec.resources` bound it where it has no limits of its own
/// (R-RES-19).
pub fn of_container(pod: &Pod, container: &Container, machine: Machine<'_>) -> LinuxResources {
    let mut resources = container.resources.clone();
    if let Some(of_pod) = &pod.resources {
        resources.cpu_limit = resources.cpu_limit.or(of_pod.cpu_limit);
        resources.memory_limit = resources.memory_limit.or(of_pod.memory_limit);
    }
    LinuxResources {
        oom_score_adj: Some(oom_score_adj(pod, container, machine.memory)),
        ..numbers(&resources, machine)
    }
}

/// Converts requests and limits to cgroup values (R-RES-10, R-RES-11, R-RES-14, R-RES-17).
fn numbers(resources: &Resources, machine: Machine<'_>) -> LinuxResources {
    let some = |value: Option<u64>| value.filter(|value| *value > 0);
    let quota = some(resources.cpu_limit).map(|milli| (milli.saturating_mul(CPU_PERIOD) / 1000).max(LEAST_QUOTA));
    LinuxResources {
        cpu_shares: Some(shares(resources.cpu_request.or(resources.cpu_limit))),
        cpu_quota: quota.and_then(|quota| i64::try_from(quota).ok()),
        cpu_period: quota.map(|_| CPU_PERIOD),
        memory_limit: some(resources.memory_limit).and_then(|bytes| i64::try_from(bytes).ok()),
        hugepage_limits: hugepages(resources, machine.hugepage_sizes),
        ..LinuxResources::default()
    }
}

fn shares(milli: Option<u64>) -> u64 {
    milli.map_or(LEAST_SHARES, |milli| (milli.saturating_mul(1024) / 1000).clamp(LEAST_SHARES, 262_144))
}

/// Returns a limit for every page size of the node: 0 where the pod asks for none (R-RES-17).
fn hugepages(resources: &Resources, sizes: &[u64]) -> Vec<HugepageLimit> {
    let limit = |size: &u64| HugepageLimit {
        page_size: page_size(*size),
        limit: resources.hugepages.get(size).copied().unwrap_or(0),
    };
    let unknown = resources.hugepages.keys().filter(|size| !sizes.contains(size));
    sizes.iter().chain(unknown).map(limit).collect()
}

/// Returns the name of a page size in cgroup files.
fn page_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// Returns the `oom_score_adj` of a container: the kernel kills containers with higher scores first (R-RES-16).
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i32 {
    let spec = pod.wire.spec.as_ref();
    let is_critical = spec.and_then(|it| it.priority_class_name.as_deref()) == Some("system-node-critical");
    let adjust = match pod.qos {
        _ if is_critical => GUARANTEED,
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let rest = share_of_pod_request(pod);
            let of = |request: u64| {
                let part = u128::from(request.saturating_add(rest)) * 1000 / u128::from(memory_capacity.max(1));
                BEST_EFFORT - i64::try_from(part).unwrap_or(BEST_EFFORT)
            };
            let own = of(container.resources.memory_request.unwrap_or(0));
            // A sidecar must outlive the containers that it serves.
            let least = pod.containers.iter().map(|it| it.resources.memory_request.unwrap_or(0)).min();
            let own = if is_sidecar(pod, container) { own.min(of(least.unwrap_or(0))) } else { own };
            own.clamp(BEST_EFFORT + GUARANTEED, BEST_EFFORT - 1)
        }
    };
    i32::try_from(adjust).expect("between -1000 and 1000")
}

/// Returns each container's share of the memory request that `spec.resources` adds to the containers' own.
fn share_of_pod_request(pod: &Pod) -> u64 {
    let Some(request) = pod.resources.as_ref().and_then(|it| it.memory_request) else { return 0 };
    let sidecars = pod.init_containers.iter().filter(|it| it.runs_always());
    let requests: Vec<_> = pod.containers.iter().chain(sidecars).map(|it| it.resources.memory_request).collect();
    let claimed = requests.iter().flatten().fold(0, |sum: u64, more| sum.saturating_add(*more));
    request.saturating_sub(claimed) / u64::try_from(requests.len()).unwrap_or(1).max(1)
}

fn is_sidecar(pod: &Pod, container: &Container) -> bool {
    container.runs_always() && pod.init_containers.iter().any(|it| it.name == container.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Machine<'_> = Machine { memory: 24 << 30, hugepage_sizes: &[2 << 20] };

    fn pod(spec: &str) -> Pod {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, uid: u-1}}\nspec: {spec}\n");
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    /// Compares with the recording `resources/burstable` of a kubelet.
    #[test]
    fn a_burstable_pod_has_what_a_kubelet_gives_it() {
        let pod = pod(
            "{containers: [{name: main, image: a, resources: {requests: {cpu: 100m, memory: 30Mi}}}, {name: limit-only, \
                       image: a, resources: {limits: {memory: 50Mi}}}, {name: none, image: a}]}",
        );
        assert_eq!(cgroup(&pod), "burstable/podu-1", "R-RES-2");
        let whole = of_pod(&pod, Some(1024), NODE);
        assert_eq!((whole.cpu_shares, whole.cpu_quota, whole.memory_limit), (Some(102), None, None), "R-RES-13");
        assert_eq!(whole.pids_limit, Some(1024), "R-RES-18");
        let numbers = |index: usize| {
            let it = of_container(&pod, &pod.containers[index], NODE);
            (it.cpu_shares, it.cpu_quota, it.memory_limit, it.oom_score_adj)
        };
        assert_eq!(numbers(0), (Some(102), None, None, Some(999)), "R-RES-10, R-RES-16");
        assert_eq!(numbers(1), (Some(2), None, Some(52_428_800), Some(998)), "R-RES-14, R-RES-16");
        assert_eq!(numbers(2), (Some(2), None, None, Some(999)), "R-RES-16");
    }

    /// Compares with the recording `resources/guaranteed`, without its init container.
    #[test]
    fn a_guaranteed_pod_has_what_a_kubelet_gives_it() {
        let pod = pod(
            "{containers: [{name: main, image: a, resources: {limits: {cpu: 200m, memory: 40Mi}}}, {name: two, image: a, \
                       resources: {limits: {cpu: 100m, memory: 20Mi}}}]}",
        );
        assert_eq!(cgroup(&pod), "podu-1", "R-RES-2");
        let whole = of_pod(&pod, None, NODE);
        assert_eq!((whole.cpu_shares, whole.cpu_quota, whole.cpu_period), (Some(307), Some(30_000), Some(100_000)));
        assert_eq!(whole.memory_limit, Some(60 << 20), "R-RES-13");
        let main = of_container(&pod, &pod.containers[0], NODE);
        assert_eq!((main.cpu_shares, main.cpu_quota), (Some(204), Some(20_000)), "R-RES-10, R-RES-11");
        assert_eq!(main.oom_score_adj, Some(-997), "R-RES-16");
    }

    #[test]
    fn the_ends_of_the_scales_hold() {
        let pod =
            pod("{containers: [{name: a, image: a, resources: {limits: {cpu: 1m}}}, {name: b, image: a, resources: \
                       {requests: {memory: 1000Gi}}}]}");
        assert_eq!(cgroup(&pod), "burstable/podu-1");
        let least = of_container(&pod, &pod.containers[0], NODE);
        assert_eq!((least.cpu_shares, least.cpu_quota), (Some(2), Some(1000)), "R-RES-10, R-RES-11");
        assert_eq!(of_container(&pod, &pod.containers[1], NODE).oom_score_adj, Some(3), "R-RES-16");
        assert_eq!(shares(Some(1_000_000_000)), 262_144, "R-RES-10");
        assert_eq!(oom_score_adj(&pod, &pod.containers[0], 0), 999, "a node whose memory is not known");
    }

    #[test]
    fn what_asks_for_nothing_is_killed_first() {
        let pod = pod("{containers: [{name: a, image: a}]}");
        assert_eq!(cgroup(&pod), "besteffort/podu-1", "R-RES-2");
        assert_eq!(of_container(&pod, &pod.containers[0], NODE).oom_score_adj, Some(1000), "R-RES-16");
        let critical = self::pod("{priorityClassName: system-node-critical, containers: [{name: main, image: a}]}");
        assert_eq!(of_container(&critical, &critical.containers[0], NODE).oom_score_adj, Some(-997), "R-ID-16");
        assert_eq!(of_pod(&pod, None, NODE).cpu_shares, Some(2));
    }

    #[test]
    fn huge_pages_that_are_not_asked_for_cannot_be_had() {
        let resources = Resources { hugepages: [(2 << 20, 4 << 20)].into(), ..Resources::default() };
        let limits: Vec<_> =
            hugepages(&resources, &[2 << 20, 1 << 30]).into_iter().map(|it| (it.page_size, it.limit)).collect();
        assert_eq!(limits, [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)], "R-RES-17");
        assert_eq!(page_size(64 << 10), "64KB");
    }
}
