//! Validates affinity and spread constraints as the API server does.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{
        Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec,
        TopologySpreadConstraint, WeightedPodAffinityTerm,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    format::{dns_label, dns_subdomain, qualified_name},
    path::Path,
    problems::{Problems, Typed},
    selector,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: Option<&Affinity>, path: &Path<'_>, problems: &mut Problems) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        self::node(node, &path.field("nodeAffinity"), problems);
    }
    if let Some(near) = &affinity.pod_affinity {
        let path = path.field("podAffinity");
        terms(near.required_during_scheduling_ignored_during_execution.as_deref(), &path.field(REQUIRED), problems);
        let preferred = near.preferred_during_scheduling_ignored_during_execution.as_deref();
        weighted_terms(preferred, &path.field(PREFERRED), problems);
    }
    if let Some(apart) = &affinity.pod_anti_affinity {
        let path = path.field("podAntiAffinity");
        terms(apart.required_during_scheduling_ignored_during_execution.as_deref(), &path.field(REQUIRED), problems);
        let preferred = apart.preferred_during_scheduling_ignored_during_execution.as_deref();
        weighted_terms(preferred, &path.field(PREFERRED), problems);
    }
}

fn node(affinity: &NodeAffinity, path: &Path<'_>, problems: &mut Problems) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.field(REQUIRED);
        let path = path.field("nodeSelectorTerms");
        if selector.node_selector_terms.is_empty() {
            problems.required(&path, "must have at least one node selector term");
        }
        for (index, term) in selector.node_selector_terms.iter().enumerate() {
            node_term(term, true, &path.index(index), problems);
        }
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    let path = path.field(PREFERRED);
    for (index, preferred) in preferred.enumerate() {
        let path = path.index(index);
        weight(preferred.weight, &path, problems);
        // Preferred labels may have any value: on a cluster of one node they would not matter.
        node_term(&preferred.preference, false, &path.field("preference"), problems);
    }
}

fn weight(weight: i32, path: &Path<'_>, problems: &mut Problems) {
    if !(1..=100).contains(&weight) {
        problems.invalid(&path.field("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(term: &NodeSelectorTerm, checks_values: bool, path: &Path<'_>, problems: &mut Problems) {
    for (index, expression) in term.match_expressions.iter().flatten().enumerate() {
        let path = path.field("matchExpressions");
        let path = path.index(index);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => problems.required(&path.field("values"), selector::WANTS_VALUES),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                problems.forbidden(&path.field("values"), selector::WANTS_NO_VALUES);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                problems.required(&path.field("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => problems.invalid(&path.field("operator"), Typed(other), "not a valid selector operator"),
        }
        problems.format(&path.field("key"), &expression.key, qualified_name(&expression.key));
        if checks_values {
            selector::label_values(values, &path.field("values"), problems);
        }
    }
    for (index, field) in term.match_fields.iter().flatten().enumerate() {
        let path = path.field("matchFields");
        node_field(field, &path.index(index), problems);
    }
}

fn node_field(field: &NodeSelectorRequirement, path: &Path<'_>, problems: &mut Problems) {
    let values = field.values.as_deref().unwrap_or_default();
    match field.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            problems.required(&path.field("values"), detail);
        }
        other => problems.invalid(&path.field("operator"), Typed(other), "not a valid selector operator"),
    }
    if field.key != "metadata.name" {
        return problems.invalid(&path.field("key"), &field.key, "not a valid field selector key");
    }
    let path = path.field("values");
    for (index, value) in values.iter().enumerate() {
        problems.format(&path.index(index), value, dns_subdomain(value));
    }
}

fn weighted_terms(terms: Option<&[WeightedPodAffinityTerm]>, path: &Path<'_>, problems: &mut Problems) {
    for (index, weighted) in terms.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        weight(weighted.weight, &path, problems);
        term(&weighted.pod_affinity_term, &path.field("podAffinityTerm"), problems);
    }
}

fn terms(terms: Option<&[PodAffinityTerm]>, path: &Path<'_>, problems: &mut Problems) {
    for (index, term) in terms.unwrap_or_default().iter().enumerate() {
        self::term(term, &path.index(index), problems);
    }
}

fn term(term: &PodAffinityTerm, path: &Path<'_>, problems: &mut Problems) {
    selector::labels(term.label_selector.as_ref(), &path.field("labelSelector"), problems);
    selector::labels(term.namespace_selector.as_ref(), &path.field("namespaceSelector"), problems);
    for namespace in term.namespaces.iter().flatten() {
        // The server spells the field this way.
        problems.format(&path.field("namespace"), namespace, dns_label(namespace));
    }
    let (matching, mismatching) = (term.match_label_keys.as_deref(), term.mismatch_label_keys.as_deref());
    label_keys(matching, mismatching, term.label_selector.as_ref(), path, problems);
    if term.topology_key.is_empty() {
        problems.required(&path.field("topologyKey"), "can not be empty");
    }
    problems.format(&path.field("topologyKey"), &term.topology_key, qualified_name(&term.topology_key));
}

/// Checks keys whose values the server takes from the pod. It has merged them into the selector before it validates.
fn label_keys(
    matching: Option<&[String]>,
    mismatching: Option<&[String]>,
    selector: Option<&LabelSelector>,
    path: &Path<'_>,
    problems: &mut Problems,
) {
    let (matching, mismatching) = (matching.unwrap_or_default(), mismatching.unwrap_or_default());
    for (field, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let path = path.field(field);
        if !keys.is_empty() && selector.is_none() {
            problems.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            problems.format(&path.index(index), key, qualified_name(key));
        }
    }
    if let Some(selector) = selector {
        let places: BTreeMap<_, _> = matching.iter().enumerate().map(|(index, key)| (key, index)).collect();
        let mut seen: BTreeSet<_> = selector.match_labels.iter().flatten().map(|(key, _)| key).collect();
        for expression in selector.match_expressions.iter().flatten() {
            if let Some(index) = places.get(&expression.key).filter(|_| seen.contains(&expression.key)) {
                let detail = "exists in both matchLabelKeys and labelSelector";
                // The server omits the field here.
                problems.invalid(&path.index(*index), &expression.key, detail);
            }
            seen.insert(&expression.key);
        }
    }
    let path = path.field("matchLabelKeys");
    let mismatching: BTreeSet<_> = mismatching.iter().collect();
    for (index, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        problems.invalid(&path.index(index), key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

pub(super) fn spread(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    let mut later = BTreeSet::new();
    let pairs = constraints.iter().rev().map(|it| (&it.topology_key, &it.when_unsatisfiable));
    let mut are_repeated: Vec<_> = pairs.map(|pair| !later.insert(pair)).collect();
    are_repeated.reverse();
    for (index, (constraint, is_repeated)) in constraints.iter().zip(are_repeated).enumerate() {
        self::constraint(constraint, is_repeated, &path.index(index), problems);
    }
}

fn constraint(constraint: &TopologySpreadConstraint, is_repeated: bool, path: &Path<'_>, problems: &mut Problems) {
    const POSITIVE: &str = "must be greater than zero";
    let action = constraint.when_unsatisfiable.as_str();
    if constraint.max_skew <= 0 {
        problems.invalid(&path.field("maxSkew"), constraint.max_skew, POSITIVE);
    }
    if constraint.topology_key.is_empty() {
        problems.required(&path.field("topologyKey"), "can not be empty");
    }
    problems.one_of_if_set(&path.field("whenUnsatisfiable"), Some(action), &["DoNotSchedule", "ScheduleAnyway"]);
    if is_repeated {
        let pair = format!("{{{}, {action}}}", constraint.topology_key);
        problems.duplicate(&path.field("{topologyKey, whenUnsatisfiable}"), &pair);
    }
    if let Some(domains) = constraint.min_domains {
        let path = path.field("minDomains");
        if domains <= 0 {
            problems.invalid(&path, domains, POSITIVE);
        }
        if action != "DoNotSchedule" {
            let detail = format_args!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
            problems.invalid(&path, domains, detail);
        }
    }
    let policies = ["Honor", "Ignore"];
    problems.one_of_if_set(&path.field("nodeAffinityPolicy"), constraint.node_affinity_policy.as_deref(), &policies);
    problems.one_of_if_set(&path.field("nodeTaintsPolicy"), constraint.node_taints_policy.as_deref(), &policies);
    label_keys(constraint.match_label_keys.as_deref(), None, constraint.label_selector.as_ref(), path, problems);
    selector::labels(constraint.label_selector.as_ref(), &path.field("labelSelector"), problems);
}
