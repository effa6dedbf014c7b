//! Defaults of requests and limits, of containers and of the pod as a whole (R-DEF-3).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use crate::quantity::Quantity;

/// Amounts by resource.
pub(crate) type List = BTreeMap<String, WireQuantity>;
/// Parsed amounts by resource.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// Rounds amounts up to thousandths.
pub(super) fn round(list: &mut List) {
    for quantity in list.values_mut() {
        if let Ok(read) = Quantity::parse(&quantity.0) {
            quantity.0 = read.round_up_to_milli().to_string();
        }
    }
}

/// Sets a missing request to the limit.
pub(super) fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// Fills in the pod's own resources from those of its containers.
pub(super) fn fill_pod(spec: &mut PodSpec) {
    let Some(mut own) = spec.resources.take() else { return };
    [&mut own.limits, &mut own.requests].into_iter().flatten().for_each(round);
    let is_set = |list: &Option<List>| list.as_ref().is_some_and(|list| !list.is_empty());
    if is_set(&own.limits) || is_set(&own.requests) {
        for (name, sum) in summed(spec, |resources| resources.limits.as_ref()) {
            let is_requested = own.requests.as_ref().is_some_and(|requests| requests.contains_key(&name));
            if is_huge(&name) && !is_requested {
                own.limits.get_or_insert_default().entry(name).or_insert_with(|| written(&sum));
            }
        }
    }
    if is_set(&own.limits) {
        let requests = own.requests.get_or_insert_default();
        for (name, sum) in summed(spec, |resources| resources.requests.as_ref()) {
            if matches!(name.as_str(), "cpu" | "memory") {
                requests.entry(name).or_insert_with(|| written(&sum));
            }
        }
        for (name, limit) in own.limits.iter().flatten().filter(|(name, _)| is_of_pods(name)) {
            requests.entry(name.clone()).or_insert_with(|| limit.clone());
        }
        own.requests = own.requests.filter(|requests| !requests.is_empty());
    }
    spec.resources = Some(own);
}

fn written(quantity: &Quantity) -> WireQuantity {
    WireQuantity(quantity.to_string())
}

pub(crate) fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Returns whether a pod as a whole can have this resource.
pub(crate) fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge(name)
}

/// Returns the amounts that all containers together need: sidecars run beside the containers, init containers one after
/// another before them.
pub(crate) fn summed(spec: &PodSpec, of: impl Fn(&ResourceRequirements) -> Option<&List>) -> Amounts {
    let amounts = |container: &Container| -> Amounts {
        let list = container.resources.as_ref().and_then(&of).into_iter().flatten();
        list.filter_map(|(name, quantity)| Some((name.clone(), Quantity::parse(&quantity.0).ok()?))).collect()
    };
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &amounts(container));
    }
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let mut needed = amounts(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &needed);
            add(&mut sidecars, &needed);
            needed.clone_from(&sidecars);
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut most, needed);
    }
    raise(&mut sum, most);
    sum
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, quantity) in more {
        let total = sum.get(name).map_or_else(|| quantity.clone(), |sum| sum.plus(quantity));
        sum.insert(name.clone(), total);
    }
}

fn raise(list: &mut Amounts, to: Amounts) {
    for (name, quantity) in to {
        if list.get(&name).is_none_or(|known| quantity > *known) {
            list.insert(name, quantity);
        }
    }
}
