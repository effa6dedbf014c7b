//! Requests and limits, of containers and of the pod as a whole.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1 as wire, apimachinery::pkg::api::resource::Quantity as WireQuantity};

use crate::{
    QosClass, Resources,
    defaults::resources::{Amounts, List, is_of_pods, summed},
    quantity::Quantity,
};

pub(super) fn resources(wire: &wire::ResourceRequirements) -> Resources {
    of(&read(wire.requests.as_ref()), &read(wire.limits.as_ref()))
}

/// Returns `spec.resources`, if it has amounts (R-RES-19).
pub(super) fn of_pod(spec: &wire::PodSpec) -> Option<Resources> {
    let own = spec.resources.as_ref()?;
    let lists = [own.requests.as_ref(), own.limits.as_ref()].into_iter().flatten();
    let is_set = lists.flat_map(List::keys).any(|name| is_of_pods(name));
    is_set.then(|| resources(own))
}

/// Returns the requests and limits for the pod's status: the sum of its containers', overridden by `spec.resources`.
pub(super) fn whole(spec: &wire::PodSpec) -> wire::ResourceRequirements {
    let own = spec.resources.as_ref().filter(|_| of_pod(spec).is_some());
    let list = |of: fn(&wire::ResourceRequirements) -> Option<&List>| {
        let mut sum = summed(spec, of);
        sum.extend(read(own.and_then(of)));
        let amounts = sum.into_iter().map(|(name, amount)| (name, WireQuantity(amount.to_string())));
        Some(amounts.collect::<List>()).filter(|list| !list.is_empty())
    };
    wire::ResourceRequirements {
        limits: list(|it| it.limits.as_ref()),
        requests: list(|it| it.requests.as_ref()),
        ..wire::ResourceRequirements::default()
    }
}

/// Returns the requests and limits of the pod as a whole, overhead included. CPU or memory is limited only if every
/// container has a limit of it, or the pod has (R-RES-13).
pub(super) fn total(spec: &wire::PodSpec) -> Resources {
    let mut requests = summed(spec, |it| it.requests.as_ref());
    let mut limits = summed(spec, |it| it.limits.as_ref());
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let has = |container: &wire::Container, name: &str| {
        let amount = read(container.resources.as_ref().and_then(|it| it.limits.as_ref())).remove(name);
        amount.and_then(|it| it.milli()).is_some_and(|milli| milli > 0)
    };
    for name in ["cpu", "memory"] {
        if !all().all(|container| has(container, name)) {
            limits.remove(name);
        }
    }
    if let Some(own) = spec.resources.as_ref().filter(|_| of_pod(spec).is_some()) {
        requests.extend(read(own.requests.as_ref()));
        limits.extend(read(own.limits.as_ref()));
    }
    for (name, more) in read(spec.overhead.as_ref()) {
        if let Some(limit) = limits.get_mut(&name) {
            *limit = limit.plus(&more);
        }
        let sum = requests.get(&name).map_or_else(|| more.clone(), |sum| sum.plus(&more));
        requests.insert(name, sum);
    }
    of(&requests, &limits)
}

/// Returns the QoS class (R-RES-1). Only amounts of CPU and memory above zero count.
pub(super) fn qos(spec: &wire::PodSpec) -> QosClass {
    let own: Vec<(Amounts, Amounts)> = match spec.resources.as_ref().filter(|_| of_pod(spec).is_some()) {
        Some(own) => vec![(read(own.requests.as_ref()), read(own.limits.as_ref()))],
        None => {
            let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            let lists = all.map(|it| it.resources.as_ref());
            lists
                .map(|it| (read(it.and_then(|it| it.requests.as_ref())), read(it.and_then(|it| it.limits.as_ref()))))
                .collect()
        }
    };
    let amount = |list: &Amounts, name: &str| list.get(name).and_then(Quantity::milli).filter(|milli| *milli > 0);
    let sum = |name: &str, of: fn(&(Amounts, Amounts)) -> &Amounts| {
        own.iter().filter_map(|lists| amount(of(lists), name)).reduce(u128::saturating_add)
    };
    let names = ["cpu", "memory"];
    let sums = names.map(|name| (sum(name, |it| &it.0), sum(name, |it| &it.1)));
    if sums.iter().all(|sums| *sums == (None, None)) {
        return QosClass::BestEffort;
    }
    let is_limited = own.iter().all(|(_, limits)| names.iter().all(|name| amount(limits, name).is_some()));
    match is_limited && sums.iter().all(|(request, limit)| request == limit) {
        true => QosClass::Guaranteed,
        false => QosClass::Burstable,
    }
}

fn of(requests: &Amounts, limits: &Amounts) -> Resources {
    let milli = |list: &Amounts, name: &str| {
        let amount = list.get(name)?.milli()?;
        u64::try_from(amount).ok()
    };
    let whole = |list: &Amounts, name: &str| u64::try_from(list.get(name)?.milli()?.div_ceil(1000)).ok();
    let page = |name: &String| {
        let size = Quantity::parse(name.strip_prefix("hugepages-")?).ok()?.milli()? / 1000;
        Some((u64::try_from(size).ok()?, whole(limits, name)?))
    };
    Resources {
        cpu_request: milli(requests, "cpu"),
        cpu_limit: milli(limits, "cpu"),
        memory_request: whole(requests, "memory"),
        memory_limit: whole(limits, "memory"),
        ephemeral_storage_request: whole(requests, "ephemeral-storage"),
        ephemeral_storage_limit: whole(limits, "ephemeral-storage"),
        hugepages: limits.keys().filter_map(page).collect::<BTreeMap<_, _>>(),
    }
}

fn read(list: Option<&List>) -> Amounts {
    let amounts = list.into_iter().flatten();
    amounts.filter_map(|(name, quantity)| Some((name.clone(), Quantity::parse(&quantity.0).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a pod's spec with the defaults that the API server fills in.
    fn pod(spec: &str) -> wire::PodSpec {
        let mut pod: wire::Pod =
            serde_json::from_str(&format!(r#"{{"metadata": {{}}, "spec": {spec}}}"#)).expect("a pod");
        crate::defaults::fill(&mut pod);
        pod.spec.expect("a spec")
    }

    fn containers(resources: &[&str]) -> wire::PodSpec {
        let list: Vec<_> = resources.iter().map(|it| format!(r#"{{"name": "a", "resources": {it}}}"#)).collect();
        pod(&format!(r#"{{"containers": [{}]}}"#, list.join(",")))
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let class = |resources: &[&str]| qos(&containers(resources));
        let limited = r#"{"limits": {"cpu": "1", "memory": "1Gi"}}"#;
        assert_eq!(class(&["{}"]), QosClass::BestEffort, "R-RES-1");
        assert_eq!(class(&[r#"{"requests": {"cpu": "0"}}"#]), QosClass::BestEffort, "nothing is asked for");
        assert_eq!(class(&[limited]), QosClass::Guaranteed, "requests are the limits");
        assert_eq!(class(&[limited, "{}"]), QosClass::Burstable);
        assert_eq!(class(&[r#"{"limits": {"cpu": "1"}}"#]), QosClass::Burstable);
        let less = r#"{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}"#;
        assert_eq!(class(&[limited, less]), QosClass::Burstable);
        let of_pod = r#"{"containers": [{"name": "a"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}"#;
        assert_eq!(qos(&pod(of_pod)), QosClass::Guaranteed, "R-RES-19");
        let hugepages = r#"{"limits": {"hugepages-2Mi": "4Mi"}}"#;
        assert_eq!(class(&[hugepages]), QosClass::BestEffort, "only CPU and memory count");
        let init = r#"{"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
            "initContainers": [{"name": "i"}]}"#;
        assert_eq!(qos(&pod(init)), QosClass::Burstable, "init containers count");
    }

    #[test]
    fn a_pods_limits_are_those_that_all_its_containers_have() {
        let both = containers(&[
            r#"{"limits": {"cpu": "200m", "memory": "40Mi"}}"#,
            r#"{"limits": {"cpu": "100m"}, "requests": {"memory": "20Mi"}}"#,
        ]);
        let sum = total(&both);
        assert_eq!((sum.cpu_request, sum.memory_request), (Some(300), Some(60 << 20)), "R-RES-13");
        assert_eq!((sum.cpu_limit, sum.memory_limit), (Some(300), None), "R-RES-13");
    }

    #[test]
    fn the_largest_init_container_and_overhead_count() {
        let spec = pod(r#"{"overhead": {"memory": "1Mi"}, "initContainers":
            [{"name": "big", "resources": {"limits": {"cpu": "1", "memory": "100Mi"}}}], "containers":
            [{"name": "a", "resources": {"limits": {"cpu": "200m", "memory": "40Mi"}}},
             {"name": "b", "resources": {"limits": {"cpu": "100m", "memory": "20Mi"}}}]}"#);
        let sum = total(&spec);
        assert_eq!((sum.cpu_request, sum.cpu_limit), (Some(1000), Some(1000)), "R-RES-13");
        assert_eq!((sum.memory_request, sum.memory_limit), (Some(101 << 20), Some(101 << 20)), "R-RES-13");
    }

    #[test]
    fn pod_level_resources_are_the_pods() {
        let spec = pod(
            r#"{"resources": {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "400m", "memory":
            "128Mi"}}, "containers": [{"name": "a", "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}}, {"name": "b"}]}"#,
        );
        let sum = total(&spec);
        assert_eq!((sum.cpu_request, sum.cpu_limit), (Some(200), Some(400)), "R-RES-19");
        assert_eq!((sum.memory_request, sum.memory_limit), (Some(64 << 20), Some(128 << 20)), "R-RES-19");
        assert_eq!(qos(&spec), QosClass::Burstable);
    }

    #[test]
    fn huge_pages_are_counted_by_their_size() {
        let spec = containers(&[r#"{"limits": {"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi", "cpu": "1"}}"#]);
        let read = resources(spec.containers[0].resources.as_ref().expect("resources"));
        assert_eq!(read.hugepages, [(2 << 20, 4 << 20), (1 << 30, 1 << 30)].into(), "R-RES-17");
    }

    // R-EVI-1: a kubelet compares usage with this sum.
    #[test]
    fn a_pods_limit_of_storage_is_the_sum_of_those_that_its_containers_have() {
        let one = r#"{"limits": {"ephemeral-storage": "1Gi"}}"#;
        let other = r#"{"limits": {"ephemeral-storage": "512Mi"}, "requests": {"ephemeral-storage": "1Mi"}}"#;
        let sum = total(&containers(&[one, other, "{}"]));
        assert_eq!(sum.ephemeral_storage_limit, Some(1536 << 20), "one without a limit does not lift the others'");
        assert_eq!(sum.ephemeral_storage_request, Some(1025 << 20), "R-DEF-3: the limit is the request");
        assert_eq!(total(&containers(&["{}"])).ephemeral_storage_limit, None);
        assert_eq!(qos(&containers(&[one])), QosClass::BestEffort, "R-RES-1");
    }
}
