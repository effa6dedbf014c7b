//! Validates volumes of Secrets, ConfigMaps and the downward API as the API server does.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, SecretVolumeSource,
};

use super::{file, items, mode};
use crate::validate::{env, path::Path, problems::Problems};

/// Fields of a pod that a file can refer to.
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

pub(super) fn secret(source: &SecretVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("secret");
    if source.secret_name.is_none() {
        problems.required(&path.field("secretName"), "");
    }
    mode(source.default_mode, &path.field("defaultMode"), problems);
    items(source.items.as_deref(), &path, problems);
}

pub(super) fn config_map(source: &ConfigMapVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("configMap");
    if source.name.is_empty() {
        problems.required(&path.field("name"), "");
    }
    mode(source.default_mode, &path.field("defaultMode"), problems);
    items(source.items.as_deref(), &path, problems);
}

pub(super) fn downward(source: &DownwardAPIVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("downwardAPI");
    mode(source.default_mode, &path.field("defaultMode"), problems);
    // The server omits the index of items here.
    for item in source.items.iter().flatten() {
        self::item(item, &path, problems);
    }
}

pub(super) fn item(item: &DownwardAPIVolumeFile, path: &Path<'_>, problems: &mut Problems) {
    file(&item.path, &path.field("path"), problems);
    match (&item.field_ref, &item.resource_field_ref) {
        (Some(field), resource) => {
            env::field(field, &FIELDS, &path.field("fieldRef"), problems);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                problems.invalid(path, "resource", detail);
            }
        }
        (None, Some(resource)) => env::resource(resource, true, &path.field("resourceFieldRef"), problems),
        (None, None) => problems.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(item.mode, &path.field("mode"), problems);
}
