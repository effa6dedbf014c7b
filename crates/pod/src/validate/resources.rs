//! Validates requests and limits as the API server does.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ResourceClaim, ResourceRequirements};

use super::{
    format::{dns_label, qualified_name},
    path::Path,
    problems::{Problems, Typed},
};
use crate::{
    defaults::resources::{Amounts, List, is_huge},
    quantity::Quantity,
};

/// Resources without a prefix that Kubernetes knows anywhere.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Standard resources that are counted in whole numbers.
const WHOLE: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Check of a resource's name in its place.
pub(super) type NameCheck = fn(&str, &Path<'_>, &mut Problems);

pub(super) fn of_container(
    resources: &ResourceRequirements,
    pod_claims: &BTreeSet<&str>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    amounts(resources.limits.as_ref(), resources.requests.as_ref(), container_name, path, problems);
    claims(resources.claims.as_deref().unwrap_or_default(), pod_claims, &path.field("claims"), problems);
}

/// Checks `spec.overhead`, as limits are checked.
pub(super) fn overhead(list: &List, path: &Path<'_>, problems: &mut Problems) {
    amounts(Some(list), None, container_name, path, problems);
}

/// Checks names and amounts of limits and requests, and that requests fit their limits.
pub(super) fn amounts(
    limits: Option<&List>,
    requests: Option<&List>,
    check_name: NameCheck,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let limits_path = path.field("limits");
    let requests_path = path.field("requests");
    let limits = read(limits);
    let requests = read(requests);
    for (name, limit) in &limits {
        let path = limits_path.key(name);
        check_name(name, &path, problems);
        amount(name, limit, &path, problems);
        huge_pages(name, limit, &path, problems);
    }
    for (name, request) in &requests {
        let path = requests_path.key(name);
        check_name(name, &path, problems);
        amount(name, request, &path, problems);
        match limits.get(name) {
            Some(limit) if request != limit && !may_overcommit(name) => {
                problems.invalid(&requests_path, request, format_args!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                let detail = format_args!("must be less than or equal to {name} limit of {limit}");
                problems.invalid(&requests_path, request, detail);
            }
            None if !may_overcommit(name) => {
                problems.required(&limits_path, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        huge_pages(name, request, &path, problems);
    }
    let names = || limits.keys().chain(requests.keys());
    if names().any(|name| is_huge(name)) && !names().any(|name| matches!(name.as_str(), "cpu" | "memory")) {
        problems.forbidden(path, "HugePages require cpu or memory");
    }
}

pub(super) fn read(list: Option<&List>) -> Amounts {
    let list = list.into_iter().flatten();
    list.filter_map(|(name, quantity)| Some((name.clone(), Quantity::parse(&quantity.0).ok()?))).collect()
}

/// Checks an amount: not below zero, and whole for resources that are counted.
pub(super) fn amount(name: &str, amount: &Quantity, path: &Path<'_>, problems: &mut Problems) {
    if amount.is_negative() {
        problems.invalid(path, amount, "must be greater than or equal to 0");
    }
    if (WHOLE.contains(&name) || is_extended(name)) && !amount.is_whole() {
        problems.invalid(path, amount, "must be an integer");
    }
}

fn huge_pages(name: &str, amount: &Quantity, path: &Path<'_>, problems: &mut Problems) {
    let Some(size) = name.strip_prefix("hugepages-") else { return };
    let is_multiple = Quantity::parse(size).is_ok_and(|size| !size.is_negative() && amount.is_multiple_of(&size));
    if !is_multiple {
        problems.invalid(path, amount, format_args!("{amount} is not positive integer multiple of {name}"));
    }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Returns whether a resource is an extended one, such as `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// Checks that a name is that of a resource; returns whether it is.
pub(super) fn any_name(name: &str, path: &Path<'_>, problems: &mut Problems) -> bool {
    let objections = qualified_name(name);
    let is_standard = STANDARD.contains(&name) || is_huge(name) || name.starts_with("requests.hugepages-");
    if !objections.is_empty() {
        problems.typed_format(path, name, objections);
        return false;
    }
    if !name.contains('/') && !is_standard {
        problems.invalid(path, Typed(name), "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

fn container_name(name: &str, path: &Path<'_>, problems: &mut Problems) {
    any_name(name, path, problems);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            problems.invalid(path, Typed(name), "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        problems.invalid(path, Typed(name), "doesn't follow extended resource name standard");
    }
}

pub(super) fn claims(claims: &[ResourceClaim], of_pod: &BTreeSet<&str>, path: &Path<'_>, problems: &mut Problems) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let name = claim.name.as_str();
        if name.is_empty() {
            problems.required(&path, "");
            continue;
        }
        if used.contains(name) {
            problems.duplicate(&path, name);
        } else {
            let request = claim.request.as_deref();
            let key = request.map_or_else(|| name.to_owned(), |request| format!("{name}/{request}"));
            if let Some(request) = request {
                problems.format(&path.field("request"), request, dns_label(request));
            }
            if used.contains(&key) {
                problems.duplicate(&path, &key);
            } else if request.is_none() {
                // The whole claim overlaps with every request of it that is used already.
                for _ in used.iter().filter(|used| used.split_once('/').is_some_and(|(claim, _)| claim == name)) {
                    problems.duplicate(&path, name);
                }
            }
            used.insert(key);
        }
        if !of_pod.contains(name) {
            let which = match of_pod.is_empty() {
                true => " which is empty".to_owned(),
                false => format!(": {}", of_pod.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{which}");
            problems.not_found(&path, name, &detail);
        }
    }
}
