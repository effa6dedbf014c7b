//! Validates metadata as the API server does.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::PodSpec,
    apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta, OwnerReference},
};

use super::{
    format::{dns_label, dns_subdomain, dns_subdomain_prefix, label_value, qualified_name},
    go_json,
    path::Path,
    problems::{Problems, Shown},
    quoted, security, spec, tolerations,
};
use crate::{kubernetes::Gates, prepare::APP_ARMOR};

/// Largest size of all annotations of an object, bytes.
const ANNOTATIONS: usize = 262_144;
/// Finalizers that need no prefix.
const FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

pub(super) fn metadata(metadata: &ObjectMeta, path: &Path<'_>, problems: &mut Problems) {
    if let Some(prefix) = metadata.generate_name.as_deref() {
        problems.format(&path.field("generateName"), prefix, dns_subdomain_prefix(prefix));
    }
    let field = path.field("name");
    match metadata.name.as_deref() {
        None => problems.required(&field, "name or generateName is required"),
        Some(name) => problems.format(&field, name, dns_subdomain(name)),
    }
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    problems.format(&path.field("namespace"), namespace, dns_label(namespace));
    labels(metadata.labels.as_ref(), &path.field("labels"), problems);
    annotations(metadata.annotations.as_ref(), &path.field("annotations"), problems);
    owners(metadata.owner_references.as_deref().unwrap_or_default(), &path.field("ownerReferences"), problems);
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    let field = path.field("finalizers");
    for finalizer in finalizers {
        problems.format(&field, finalizer, qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        problems.invalid(&field, finalizers, detail);
    }
    managed(metadata.managed_fields.as_deref().unwrap_or_default(), &path.field("managedFields"), problems);
    for (index, finalizer) in finalizers.iter().enumerate() {
        if !finalizer.contains('/') && !FINALIZERS.contains(&finalizer.as_str()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            problems.invalid(&field.index(index), finalizer, detail);
        }
    }
}

/// Checks labels, and selectors that name them.
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>, path: &Path<'_>, problems: &mut Problems) {
    for (key, value) in labels.into_iter().flatten() {
        problems.format(path, key, qualified_name(key));
        problems.format(path, value, label_value(value));
    }
}

pub(super) fn annotations(list: Option<&BTreeMap<String, String>>, path: &Path<'_>, problems: &mut Problems) {
    let list = list.into_iter().flatten();
    for (key, _) in list.clone() {
        problems.format(path, key, qualified_name(&key.to_lowercase()));
    }
    if list.map(|(key, value)| key.len() + value.len()).sum::<usize>() > ANNOTATIONS {
        problems.too_long(path, ANNOTATIONS);
    }
}

fn owners(owners: &[OwnerReference], path: &Path<'_>, problems: &mut Problems) {
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.api_version.as_str();
        if version.is_empty() || version.ends_with('/') || version.matches('/').count() > 1 {
            problems.invalid(&path.field("apiVersion"), &owner.api_version, "version must not be empty");
        }
        for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                problems.invalid(&path.field(field), value, "must not be empty");
            }
        }
        if owner.api_version == "v1" && owner.kind == "Event" {
            let value = InGo::owner(owner);
            problems.invalid(path, Shown::json(value), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let detail = format_args!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    problems.invalid(path, InGo(owners), detail);
                }
                None => controller = Some(name),
            }
        }
    }
}

/// Owners as the server shows them: with their fields in the order of Go's type.
struct InGo<'a>(&'a [OwnerReference]);

impl InGo<'_> {
    fn owner(owner: &OwnerReference) -> String {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let mut shown = format!(
            "{{\"apiVersion\":{},\"kind\":{},\"name\":{},\"uid\":{}",
            text(&owner.api_version),
            text(&owner.kind),
            text(&owner.name),
            text(&owner.uid)
        );
        for (field, value) in [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)] {
            if let Some(value) = value {
                shown.push_str(&format!(",\"{field}\":{value}"));
            }
        }
        shown + "}"
    }
}

impl From<InGo<'_>> for Shown {
    fn from(owners: InGo<'_>) -> Self {
        let shown: Vec<_> = owners.0.iter().map(InGo::owner).collect();
        Self::json(format!("[{}]", shown.join(",")))
    }
}

fn managed(entries: &[ManagedFieldsEntry], path: &Path<'_>, problems: &mut Problems) {
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        let operation = entry.operation.as_deref().unwrap_or_default();
        if !matches!(operation, "Apply" | "Update") {
            problems.invalid(&path.field("operation"), operation, "must be `Apply` or `Update`");
        }
        let kind = entry.fields_type.as_deref().unwrap_or_default();
        if !matches!(kind, "" | "FieldsV1") {
            problems.invalid(&path.field("fieldsType"), kind, "must be `FieldsV1`");
        }
        let manager = entry.manager.as_deref().unwrap_or_default();
        if manager.len() > 128 {
            problems.too_long(&path.field("manager"), 128);
        }
    }
}

/// Checks annotations that mean something for a pod.
pub(super) fn pod_annotations(metadata: &ObjectMeta, spec: &PodSpec, problems: &mut Problems) {
    let Some(annotations) = &metadata.annotations else { return };
    let metadata = Path::root("metadata");
    let path = metadata.field("annotations");
    if let Some(value) = annotations.get("kubernetes.io/config.mirror") {
        if spec.node_name.is_none() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            problems.invalid(&path.key("kubernetes.io/config.mirror"), value, detail);
        }
        if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            // The server gives no path here.
            problems.forbidden(&Path::root("[]"), "static pods do not support resource claims");
        }
    }
    annotated_tolerations(annotations, &path, problems);
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = annotations.get(COST) {
        // The number has neither a plus nor leading zeros.
        let begins_well = value == "0" || value.starts_with(|first: char| matches!(first, '-' | '1'..='9'));
        let is_canonical = begins_well && value.parse::<i32>().is_ok();
        if !is_canonical {
            problems.invalid(&path.key(COST), value, "must be a 32bit integer");
        }
    }
    security::seccomp::annotations(annotations, &path, problems);
    for (key, value) in annotations {
        let Some(container) = key.strip_prefix(APP_ARMOR) else { continue };
        if !spec::container_names(spec).any(|name| name == container) {
            problems.invalid(&path.key(key), container, "container not found");
        }
        if !matches!(value.as_str(), "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
            let detail = format_args!("invalid AppArmor profile name: {}", quoted(value));
            problems.invalid(&path.key(key), value, detail);
        }
    }
}

/// Checks tolerations in the annotation that held them, as a JSON list, before they had a field.
fn annotated_tolerations(annotations: &BTreeMap<String, String>, path: &Path<'_>, problems: &mut Problems) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/tolerations";
    let Some(text) = annotations.get(KEY).filter(|text| !text.is_empty()) else { return };
    match go_json::tolerations(text) {
        Ok(list) => tolerations::tolerations(Some(&list), &Gates::default(), &path.field(KEY), problems),
        Err(why) => problems.invalid(path, KEY, why),
    }
}
