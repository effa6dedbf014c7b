//! Validates environment variables as the API server does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, ResourceFieldSelector,
};

use super::{
    format::{config_key, descending_path, dns_label, dns_subdomain, dns_subdomain_prefix, env_name, qualified_name},
    path::Path,
    problems::Problems,
    spec::Pod,
};
use crate::quantity::Quantity;

/// Fields of a pod that a variable can refer to.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that the downward API knows; each place accepts some of them.
const KNOWN_FIELDS: [&str; 13] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn variables(variables: Option<&[EnvVar]>, path: &Path<'_>, problems: &mut Problems) {
    for (index, variable) in variables.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        match variable.name.as_str() {
            "" => problems.required(&path.field("name"), ""),
            name => problems.format(&path.field("name"), name, env_name(name)),
        }
        if let Some(source) = &variable.value_from {
            self::source(source, variable.value.is_some(), &path.field("valueFrom"), problems);
        }
    }
}

fn source(source: &EnvVarSource, has_value: bool, path: &Path<'_>, problems: &mut Problems) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        self::field(field, &FIELDS, &path.field("fieldRef"), problems);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        self::resource(resource, false, &path.field("resourceFieldRef"), problems);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        self::key(&key.name, &key.key, &path.field("configMapKeyRef"), problems);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        self::key(&key.name, &key.key, &path.field("secretKeyRef"), problems);
    }
    if let Some(key) = &source.file_key_ref {
        sources += 1;
        file_key(key, &path.field("fileKeyRef"), problems);
    }
    match sources {
        0 => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                          `fileKeyRef`";
            problems.invalid(path, "", detail);
        }
        _ if has_value => problems.invalid(path, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => problems.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// Checks a `fieldRef`: one of `allowed`, or a label or annotation by key.
pub(super) fn field(field: &ObjectFieldSelector, allowed: &[&str], path: &Path<'_>, problems: &mut Problems) {
    let version = field.api_version.as_deref().unwrap_or_default();
    let name = field.field_path.as_str();
    if version.is_empty() {
        return problems.required(&path.field("apiVersion"), "");
    }
    if name.is_empty() {
        return problems.required(&path.field("fieldPath"), "");
    }
    let mut cannot = |why: String| {
        problems.invalid(&path.field("fieldPath"), name, format_args!("error converting fieldPath: {why}"));
    };
    if version != "v1" {
        return cannot(format!("unsupported pod version: {version}"));
    }
    let subscripted = name.strip_suffix("']").and_then(|name| name.split_once("['"));
    let subscripted = subscripted.filter(|(path, _)| !path.is_empty());
    match subscripted {
        Some(("metadata.annotations", key)) => {
            problems.format(path, &key.to_lowercase(), qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => problems.format(path, key, qualified_name(key)),
        Some(_) => cannot(format!("field label does not support subscript: {name}")),
        // `spec.host` is the old name of `spec.nodeName`.
        None if name == "spec.host" && !allowed.contains(&"spec.nodeName") => {
            problems.not_among(&path.field("fieldPath"), "spec.nodeName", &sorted(allowed));
        }
        None if name == "spec.host" => {}
        None if !KNOWN_FIELDS.contains(&name) && name != "status.podIPs" => {
            cannot(format!("field label not supported: {name}"));
        }
        None if !allowed.contains(&name) => problems.not_among(&path.field("fieldPath"), name, &sorted(allowed)),
        None => {}
    }
}

fn sorted<'a>(list: &[&'a str]) -> Vec<&'a str> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list
}

/// Checks a `resourceFieldRef`.
pub(super) fn resource(field: &ResourceFieldSelector, in_volume: bool, path: &Path<'_>, problems: &mut Problems) {
    let name = field.resource.as_str();
    let huge = name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-");
    if in_volume && field.container_name.is_none() {
        problems.required(&path.field("containerName"), "");
    } else if name.is_empty() {
        problems.required(&path.field("resource"), "");
    } else if !RESOURCES.contains(&name) && !huge {
        problems.not_among(&path.field("resource"), name, &RESOURCES);
    }
    let divisor = field.divisor.as_ref().map_or("0", |divisor| divisor.0.as_str());
    if Quantity::parse(divisor).is_ok_and(|divisor| divisor.is_zero()) {
        return;
    }
    let (what, allowed) = match name.split_once('.').map(|(_, what)| what) {
        Some("cpu") if RESOURCES.contains(&name) => ("cpu", &["1m", "1"][..]),
        Some("memory") if RESOURCES.contains(&name) => ("memory", &DIVISORS[..]),
        Some("ephemeral-storage") if RESOURCES.contains(&name) => ("local ephemeral storage", &DIVISORS[..]),
        _ if huge => ("hugepages", &DIVISORS[..]),
        _ => return,
    };
    if !allowed.contains(&divisor) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { DIVISORS.join(", ") };
        let detail = format_args!("only divisor's values {values} are supported with the {what} resource");
        problems.invalid(&path.field("divisor"), name, detail);
    }
}

/// Checks a reference to a key of a ConfigMap or Secret.
fn key(name: &str, key: &str, path: &Path<'_>, problems: &mut Problems) {
    problems.format(&path.field("name"), name, dns_subdomain(name));
    match key {
        "" => problems.required(&path.field("key"), ""),
        key => problems.format(&path.field("key"), key, config_key(key)),
    }
}

/// Checks a `fileKeyRef` (R-VAL-43).
fn file_key(selector: &FileKeySelector, path: &Path<'_>, problems: &mut Problems) {
    match selector.key.as_str() {
        "" => problems.required(&path.field("key"), ""),
        key => problems.format(&path.field("key"), key, env_name(key)),
    }
    match selector.volume_name.as_str() {
        "" => problems.required(&path.field("volumeName"), ""),
        name => problems.format(&path.field("volumeName"), name, dns_label(name)),
    }
    match selector.path.as_str() {
        "" => problems.required(&path.field("path"), ""),
        // An absolute path is accepted too.
        file => {
            let objections = descending_path(file.trim_start_matches('/'));
            problems.format(&path.field("path"), file, objections);
        }
    }
}

/// Checks that the volume of every `fileKeyRef` is an emptyDir of the pod.
pub(super) fn file_volumes(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    // Invalid volumes count too: their problems are reported once, elsewhere.
    let volumes: BTreeMap<_, _> =
        pod.spec.volumes.iter().flatten().map(|volume| (volume.name.as_str(), volume)).collect();
    let init_containers = pod.spec.init_containers.iter().flatten().map(|it| &it.env).collect::<Vec<_>>();
    let ephemeral = pod.spec.ephemeral_containers.iter().flatten().map(|it| &it.env).collect();
    let containers = pod.spec.containers.iter().map(|it| &it.env).collect();
    let lists = [("initContainers", init_containers), ("containers", containers), ("ephemeralContainers", ephemeral)];
    for (list, environments) in lists {
        let path = path.field(list);
        for (index, env) in environments.into_iter().enumerate() {
            let path = path.index(index);
            for (index, variable) in env.iter().flatten().enumerate() {
                let key = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref());
                let Some(name) = key.map(|key| key.volume_name.as_str()) else { continue };
                let path = path.field("env");
                let path = path.index(index);
                let path = path.field("valueFrom");
                let path = path.field("fileKeyRef");
                match volumes.get(name) {
                    None => problems.not_found(&path.field("volumeName"), name, ""),
                    Some(volume) if volume.empty_dir.is_none() => {
                        let detail = "referenced volume must be of type emptyDir";
                        problems.invalid(&path.field("volumeName"), name, detail);
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// Checks `envFrom`.
pub(super) fn sources(sources: Option<&[EnvFromSource]>, path: &Path<'_>, problems: &mut Problems) {
    for (index, source) in sources.unwrap_or_default().iter().enumerate() {
        let list = path;
        let path = path.index(index);
        if let Some(prefix) = &source.prefix {
            problems.format(&path.field("prefix"), prefix, env_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|it| it.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|it| it.name.as_str())),
        ];
        for (field, name) in names {
            let field = path.field(field);
            match name {
                None => {}
                Some("") => problems.required(&field.field("name"), ""),
                Some(name) => problems.format(&field.field("name"), name, dns_subdomain_prefix(name)),
            }
        }
        // The server omits the index here.
        match names.iter().filter(|(_, name)| name.is_some()).count() {
            0 => problems.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => problems.invalid(list, "", "may not have more than one field specified at a time"),
        }
    }
}
