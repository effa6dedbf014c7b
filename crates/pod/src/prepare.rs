//! Changes that an API server makes to a new pod, beyond defaults. The pod that a node runs gets only [`tidy`] of them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        AppArmorProfile, Lifecycle, Pod, PodAffinityTerm, PodSpec, ResourceRequirements, SecurityContext,
        VolumeProjection,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
};

use crate::{
    kubernetes::Gates,
    limits::{COPIED_LABEL, COPIED_LABELS},
    validate::security::app_armor,
};

/// Prefix of the annotations that once held a container's AppArmor profile.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Drops fields that a new object cannot have and fields behind closed gates, merges label keys, and copies AppArmor
/// annotations into fields.
pub(crate) fn prepare(pod: &mut Pod, gates: &Gates) {
    pod.status = None;
    let metadata = &mut pod.metadata;
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.uid = None;
    metadata.generation = None;
    metadata.creation_timestamp = None;
    metadata.resource_version = None;
    metadata.self_link = None;
    metadata.managed_fields = None;
    if metadata.name.is_none()
        && let Some(prefix) = &metadata.generate_name
    {
        let kept = prefix.char_indices().map(|(at, char)| at + char.len_utf8()).take_while(|end| *end <= PREFIX).last();
        metadata.name = Some(format!("{}{SUFFIX}", &prefix[..kept.unwrap_or_default()]));
    }
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let Some(spec) = &mut pod.spec else { return };
    close(spec, gates);
    merge_label_keys(spec, &labels);
    copy_app_armor(spec, &annotations);
}

/// Stand-in for the five random characters that the server appends to `generateName`.
const SUFFIX: &str = "xxxxx";
/// Bytes that the server keeps of `generateName`: with the suffix it must be a DNS label.
const PREFIX: usize = 58;

fn close(spec: &mut PodSpec, gates: &Gates) {
    if !gates.stop_signals {
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        let lifecycles = containers.map(|container| &mut container.lifecycle);
        let ephemeral = spec.ephemeral_containers.iter_mut().flatten().map(|container| &mut container.lifecycle);
        for lifecycle in lifecycles.chain(ephemeral) {
            let had_signal = lifecycle.as_mut().is_some_and(|lifecycle| lifecycle.stop_signal.take().is_some());
            lifecycle.take_if(|lifecycle| had_signal && *lifecycle == Lifecycle::default());
        }
    }
    if !gates.scheduling_groups {
        spec.scheduling_group = None;
    }
    for volume in spec.volumes.iter_mut().flatten() {
        for source in volume.projected.iter_mut().flat_map(|it| it.sources.iter_mut().flatten()) {
            close_projection(source, gates);
        }
    }
}

fn close_projection(source: &mut VolumeProjection, gates: &Gates) {
    if !gates.cluster_trust_bundles {
        source.cluster_trust_bundle = None;
    }
    if !gates.pod_certificates {
        source.pod_certificate = None;
    }
}

/// Removes lists and maps without entries. Their presence counts for some rules and for nothing else.
pub(crate) fn tidy(pod: &mut Pod) {
    tidy_metadata(&mut pod.metadata);
    let Some(spec) = &mut pod.spec else { return };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        tidy_resources(&mut container.resources);
        tidy_capabilities(&mut container.security_context);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        tidy_resources(&mut container.resources);
        tidy_capabilities(&mut container.security_context);
        container.ports.take_if(|list| list.is_empty());
        container.resize_policy.take_if(|list| list.is_empty());
        container.restart_policy_rules.take_if(|list| list.is_empty());
    }
    tidy_resources(&mut spec.resources);
    if let Some(context) = &mut spec.security_context {
        context.supplemental_groups.take_if(|list| list.is_empty());
        context.sysctls.take_if(|list| list.is_empty());
    }
    for volume in spec.volumes.iter_mut().flatten() {
        let template = volume.ephemeral.as_mut().and_then(|it| it.volume_claim_template.as_mut());
        if let Some(metadata) = template.and_then(|template| template.metadata.as_mut()) {
            tidy_metadata(metadata);
        }
    }
}

fn tidy_metadata(metadata: &mut ObjectMeta) {
    metadata.finalizers.take_if(|list| list.is_empty());
    metadata.managed_fields.take_if(|list| list.is_empty());
    metadata.owner_references.take_if(|list| list.is_empty());
}

fn tidy_resources(resources: &mut Option<ResourceRequirements>) {
    let Some(resources) = resources else { return };
    resources.claims.take_if(|list| list.is_empty());
    resources.limits.take_if(|list| list.is_empty());
    resources.requests.take_if(|list| list.is_empty());
}

fn tidy_capabilities(context: &mut Option<SecurityContext>) {
    let Some(capabilities) = context.as_mut().and_then(|context| context.capabilities.as_mut()) else { return };
    capabilities.add.take_if(|list| list.is_empty());
    capabilities.drop.take_if(|list| list.is_empty());
}

/// Adds `matchLabelKeys` and `mismatchLabelKeys` to the label selectors beside them, as requirements.
fn merge_label_keys(spec: &mut PodSpec, labels: &BTreeMap<String, String>) {
    let mut left = COPIED_LABELS;
    if let Some(affinity) = &mut spec.affinity {
        let mut terms: Vec<&mut PodAffinityTerm> = Vec::new();
        if let Some(near) = &mut affinity.pod_affinity {
            terms.extend(near.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
            let preferred = near.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
        }
        if let Some(apart) = &mut affinity.pod_anti_affinity {
            terms.extend(apart.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
            let preferred = apart.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
            terms.extend(preferred.map(|weighted| &mut weighted.pod_affinity_term));
        }
        for term in terms {
            merge(term.label_selector.as_mut(), term.match_label_keys.as_deref(), "In", labels, &mut left);
            merge(term.label_selector.as_mut(), term.mismatch_label_keys.as_deref(), "NotIn", labels, &mut left);
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        merge(constraint.label_selector.as_mut(), constraint.match_label_keys.as_deref(), "In", labels, &mut left);
    }
}

fn merge(
    selector: Option<&mut LabelSelector>,
    keys: Option<&[String]>,
    operator: &str,
    labels: &BTreeMap<String, String>,
    left: &mut usize,
) {
    let Some(selector) = selector else { return };
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key).filter(|value| value.len() <= COPIED_LABEL) {
            let size = size_of::<LabelSelectorRequirement>() + size_of::<String>() + key.len() + value.len();
            let Some(rest) = left.checked_sub(size) else { return };
            *left = rest;
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

fn copy_app_armor(spec: &mut PodSpec, annotations: &BTreeMap<String, String>) {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let of_pod = spec.security_context.as_ref().and_then(|it| it.app_armor_profile.clone());
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let Some(annotation) = annotations.get(&format!("{APP_ARMOR}{}", container.name)) else { continue };
        let own = container.security_context.as_ref().and_then(|it| it.app_armor_profile.as_ref());
        let Some(profile) = app_armor_profile(annotation).filter(app_armor::is_valid) else { continue };
        if own.is_none() && Some(&profile) != of_pod.as_ref() {
            container.security_context.get_or_insert_default().app_armor_profile = Some(profile);
        }
    }
}

/// Returns the profile that an annotation's text names.
pub(crate) fn app_armor_profile(annotation: &str) -> Option<AppArmorProfile> {
    let (type_, localhost_profile) = match annotation {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        other => ("Localhost", Some(other.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile })
}
