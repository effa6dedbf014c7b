//! Validates volumes of PersistentVolumeClaims as the API server does.

use k8s_openapi::{
    api::core::v1::{
        EphemeralVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, TypedObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    quantity::Quantity,
    validate::{
        format::{dns_label, dns_subdomain},
        metadata,
        path::Path,
        problems::Problems,
        resources::amount,
        selector,
    },
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn claim(source: &PersistentVolumeClaimVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    if source.claim_name.is_empty() {
        problems.required(&path.field("persistentVolumeClaim").field("claimName"), "");
    }
}

pub(super) fn ephemeral(source: &EphemeralVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("ephemeral");
    let path = path.field("volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else { return problems.required(&path, "") };
    if let Some(metadata) = &template.metadata {
        self::metadata(metadata, &path.field("metadata"), problems);
    }
    spec(&template.spec, &path.field("spec"), problems);
}

/// Checks the metadata of a claim template: its labels and annotations are passed on to the claim, and the user may set
/// nothing else.
fn metadata(metadata: &ObjectMeta, path: &Path<'_>, problems: &mut Problems) {
    metadata::annotations(metadata.annotations.as_ref(), &path.field("annotations"), problems);
    metadata::labels(metadata.labels.as_ref(), &path.field("labels"), problems);
    let is_set = [
        ("name", metadata.name.is_some()),
        ("generateName", metadata.generate_name.is_some()),
        ("namespace", metadata.namespace.is_some()),
        ("selfLink", metadata.self_link.is_some()),
        // The server spells the field this way.
        ("uID", metadata.uid.is_some()),
        ("resourceVersion", metadata.resource_version.is_some()),
        ("generation", metadata.generation.is_some()),
        ("creationTimestamp", metadata.creation_timestamp.is_some()),
        ("deletionTimestamp", metadata.deletion_timestamp.is_some()),
        ("deletionGracePeriodSeconds", metadata.deletion_grace_period_seconds.is_some()),
        ("ownerReferences", metadata.owner_references.is_some()),
        ("finalizers", metadata.finalizers.is_some()),
        ("managedFields", metadata.managed_fields.is_some()),
    ];
    for (field, _) in is_set.into_iter().filter(|(_, is_set)| *is_set) {
        problems.forbidden(&path.field(field), "cannot be set");
    }
}

fn spec(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, problems: &mut Problems) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let field = path.field("accessModes");
    if modes.is_empty() {
        problems.required(&field, "at least 1 access mode is required");
    }
    selector::labels(spec.selector.as_ref(), &path.field("selector"), problems);
    for mode in modes {
        problems.one_of_if_set(&field, Some(mode), &ACCESS_MODES);
    }
    let is_exclusive = |mode: &String| mode == "ReadWriteOncePod";
    let is_known = |mode: &String| ACCESS_MODES.contains(&mode.as_str());
    if modes.iter().any(is_exclusive) && modes.iter().any(|mode| is_known(mode) && !is_exclusive(mode)) {
        problems.forbidden(&field, "may not use ReadWriteOncePod with other access modes");
    }
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let field = path.field("resources");
    let field = field.key("storage");
    match requests.and_then(|requests| Quantity::parse(&requests.get("storage")?.0).ok()) {
        None => problems.required(&field, ""),
        Some(size) if size.is_negative() || size.is_zero() => {
            problems.invalid(&field, &size, "must be greater than zero");
        }
        Some(size) => amount("storage", &size, &field, problems),
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        problems.format(&path.field("storageClassName"), class, dns_subdomain(class));
    }
    problems.one_of_if_set(&path.field("volumeMode"), spec.volume_mode.as_deref(), &["Block", "Filesystem"]);
    sources(spec, path, problems);
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|class| !class.is_empty()) {
        problems.format(&path.field("volumeAttributesClassName"), class, dns_subdomain(class));
    }
}

/// Checks `dataSource` and `dataSourceRef`.
fn sources(spec: &PersistentVolumeClaimSpec, path: &Path<'_>, problems: &mut Problems) {
    let old = spec.data_source.as_ref().map(|source| TypedObjectReference {
        api_group: source.api_group.clone(),
        kind: source.kind.clone(),
        name: source.name.clone(),
        namespace: None,
    });
    let new = spec.data_source_ref.as_ref();
    if let Some(source) = &old {
        self::source(source, &path.field("dataSource"), problems);
    }
    if let Some(source) = new {
        self::source(source, &path.field("dataSourceRef"), problems);
    }
    let (Some(old), Some(new)) = (&old, new) else { return };
    // The server shows a path in place of a value, and Go writes a path as an empty JSON object.
    let shown = || serde_json::json!({});
    if new.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty()) {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        problems.invalid(path, shown(), detail);
    } else if (&old.api_group, &old.kind, &old.name) != (&new.api_group, &new.kind, &new.name) {
        problems.invalid(path, shown(), "must match dataSourceRef");
    }
}

fn source(source: &TypedObjectReference, path: &Path<'_>, problems: &mut Problems) {
    if source.name.is_empty() {
        problems.required(&path.field("name"), "");
    }
    if source.kind.is_empty() {
        problems.required(&path.field("kind"), "");
    }
    match source.api_group.as_deref().unwrap_or_default() {
        "" if source.kind != "PersistentVolumeClaim" => {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            problems.invalid(path, &source.kind, detail);
        }
        "" => {}
        group => problems.format(&path.field("apiGroup"), group, dns_subdomain(group)),
    }
    if let Some(namespace) = source.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        problems.format(&path.field("namespace"), namespace, dns_label(namespace));
    }
}
