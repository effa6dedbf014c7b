//! Validates seccomp profiles, and the annotations that once held them, as the API server does.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PodSpec, SeccompProfile},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::validate::{
    format::descending_path,
    path::Path,
    problems::{Problems, Shown},
    spec::visit,
};

const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub(super) fn profile(profile: Option<&SeccompProfile>, path: &Path<'_>, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "" => problems.required(&path.field("type"), "type is required when seccompProfile is set"),
        kind => {
            let kinds = ["Localhost", "RuntimeDefault", "Unconfined"];
            problems.one_of_if_set(&path.field("type"), Some(kind), &kinds);
        }
    }
    let path = path.field("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => problems.required(&path, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => problems.format(&path, file, descending_path(file)),
        (kind, Some(file)) => {
            // The server shows the whole profile here, with Go's names.
            let json = |text: &str| serde_json::Value::from(text);
            let value = format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", json(kind), json(file));
            problems.invalid(&path, Shown::json(value), "can only be set when seccomp type is Localhost");
        }
        (_, None) => {}
    }
}

pub(in crate::validate) fn annotations(list: &BTreeMap<String, String>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(value) = list.get(OF_POD) {
        annotation(value, &path.field(OF_POD), problems);
    }
    for (key, value) in list.iter().filter(|(key, _)| key.starts_with(OF_CONTAINER)) {
        annotation(value, &path.field(key), problems);
    }
}

fn annotation(value: &str, path: &Path<'_>, problems: &mut Problems) {
    match value {
        "runtime/default" | "docker/default" | "unconfined" => {}
        value => match value.strip_prefix("localhost/") {
            Some(file) => problems.format(path, file, descending_path(file)),
            None => problems.invalid(path, value, "must be a valid seccomp profile"),
        },
    }
}

pub(in crate::validate) fn agrees_with_annotations(spec: &PodSpec, metadata: &ObjectMeta, problems: &mut Problems) {
    let Some(annotations) = &metadata.annotations else { return };
    let of_pod = spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    if let (Some(profile), Some(annotation)) = (of_pod, annotations.get(OF_POD)) {
        let path = Path::root("spec");
        let path = path.field("securityContext");
        agrees(profile, annotation, &path.field("seccompProfile"), problems);
    }
    visit(spec, &mut |name, context, path| {
        let Some(profile) = context.and_then(|context| context.seccomp_profile.as_ref()) else { return };
        if let Some(annotation) = annotations.get(&format!("{OF_CONTAINER}{name}")) {
            let path = path.field("securityContext");
            agrees(profile, annotation, &path.field("seccompProfile"), problems);
        }
    });
}

fn agrees(profile: &SeccompProfile, annotation: &str, path: &Path<'_>, problems: &mut Problems) {
    let is_same_type = match profile.type_.as_str() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => matches!(annotation, "runtime/default" | "docker/default"),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !is_same_type {
        return problems.forbidden(&path.field("type"), "seccomp type in annotation and field must match");
    }
    let file = annotation.strip_prefix("localhost/");
    if profile.type_ == "Localhost" && file != profile.localhost_profile.as_deref() {
        let detail = "seccomp profile in annotation and field must match";
        problems.forbidden(&path.field("localhostProfile"), detail);
    }
}
