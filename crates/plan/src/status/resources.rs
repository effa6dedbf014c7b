//! Resources of a running container, as its status shows them (R-CS-1).

use std::collections::BTreeMap;

use stanchion_pod::{
    Container, Pod,
    k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity},
};

use crate::resources::{Machine, of_container};

/// Largest CPU limit and request, millicores, that the kernel raises to its minimum. A kubelet shows the manifest's
/// value.
const LEAST_LIMIT: u64 = 10;
const LEAST_REQUEST: u64 = 2;

/// Returns the manifest's resources with the kernel's values, which are rounded, and come from `spec.resources` where
/// the container has none. A list that the manifest omits or leaves empty stays so.
pub fn in_force(pod: &Pod, container: &Container, mut given: ResourceRequirements) -> ResourceRequirements {
    // No value in the status depends on the node's memory.
    let numbers = of_container(pod, container, Machine::default());
    let is_some = |list: &&mut BTreeMap<String, Quantity>| !list.is_empty();
    if let Some(limits) = given.limits.as_mut().filter(is_some) {
        let positive = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
        let cpu = numbers.cpu_quota.and_then(positive).zip(numbers.cpu_period.filter(|period| *period > 0));
        let cpu = cpu.map(|(quota, period)| quota.saturating_mul(1000) / period);
        let wanted = container.resources.cpu_limit.unwrap_or(0);
        if let Some(cpu) = cpu.filter(|cpu| (*cpu).max(wanted) > LEAST_LIMIT) {
            limits.insert("cpu".to_owned(), Quantity(milli(cpu)));
        }
        if let Some(memory) = numbers.memory_limit.and_then(positive) {
            limits.insert("memory".to_owned(), Quantity(binary(memory)));
        }
    }
    if let Some(requests) = given.requests.as_mut().filter(is_some) {
        let cpu = numbers.cpu_shares.map(|shares| shares.saturating_mul(1000).div_ceil(1024));
        let wanted = container.resources.cpu_request.unwrap_or(0);
        if let Some(cpu) = cpu.filter(|cpu| (*cpu).max(wanted) > LEAST_REQUEST) {
            requests.insert("cpu".to_owned(), Quantity(milli(cpu)));
        }
    }
    given
}

/// Formats thousandths in Kubernetes' canonical form: `300m`, `2`.
fn milli(amount: u64) -> String {
    match (amount / 1000, amount % 1000) {
        (whole, 0) => decimal(whole),
        _ => format!("{amount}m"),
    }
}

fn decimal(amount: u64) -> String {
    suffixed(amount, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

/// Formats bytes in Kubernetes' canonical form: `32Mi`, `9500000`.
fn binary(bytes: u64) -> String {
    suffixed(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

fn suffixed(mut amount: u64, step: u64, suffixes: &[&str]) -> String {
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next().copied().unwrap_or_default();
    while amount > 0 && amount.is_multiple_of(step) {
        let Some(next) = suffixes.next() else { break };
        (amount, suffix) = (amount / step, next);
    }
    format!("{amount}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(resources: &str, of_pod: &str) -> String {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{{of_pod}containers: [{{name: c, image: a, resources: \
             {{{resources}}}}}]}}\n"
        );
        let decoded = stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}"));
        let pod = &decoded.pods[0];
        let given = pod.wire.spec.as_ref().and_then(|spec| spec.containers[0].resources.clone()).unwrap_or_default();
        let shown = in_force(pod, &pod.containers[0], given);
        let list = |list: Option<BTreeMap<String, Quantity>>| {
            let all = list.unwrap_or_default().into_iter().map(|(name, amount)| format!("{name}={}", amount.0));
            all.collect::<Vec<_>>().join(" ")
        };
        format!("{} / {}", list(shown.limits), list(shown.requests))
    }

    /// Compares with the recordings `resources/pod-level-guaranteed` and `resources/limits-tiny-and-sidecar-request`.
    #[test]
    fn a_running_container_shows_what_the_kernel_was_told() {
        let pod = "resources: {limits: {cpu: 300m, memory: 96Mi}}, ";
        assert_eq!(shown("limits: {memory: 32Mi}", pod), "cpu=300m memory=32Mi / cpu=300m memory=32Mi");
        assert_eq!(shown("", pod), " / ");
        assert_eq!(
            shown("requests: {cpu: 1m, memory: '8000000'}, limits: {cpu: 5m, memory: 9.5M}", ""),
            "cpu=5m memory=9500000 / cpu=1m memory=8M"
        );
        assert_eq!(
            shown("requests: {cpu: 30m}, limits: {cpu: 1500m, memory: 20Mi}", ""),
            "cpu=1500m memory=20Mi / cpu=30m memory=20Mi"
        );
        assert_eq!(shown("limits: {cpu: 2, memory: 1Gi}", ""), "cpu=2 memory=1Gi / cpu=2 memory=1Gi");
    }
}
