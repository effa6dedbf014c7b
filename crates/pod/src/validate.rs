//! Validates pods as the API server does, in its words and its order (R-VAL).

mod affinity;
mod container;
mod dns;
mod env;
mod ephemeral;
mod format;
mod go_json;
mod metadata;
mod mounts;
mod path;
mod pod_resources;
mod ports;
mod probes;
mod problems;
mod resources;
pub(crate) mod security;
mod selector;
mod spec;
mod tolerations;
mod volumes;
mod windows;

use k8s_openapi::api::core::v1::Pod;

use crate::{kubernetes::Gates, problem};
use path::Path;
use problems::Problems;

/// Quotes a text as Go does.
pub(crate) fn quoted(text: &str) -> String {
    problems::Shown::from(text).to_string()
}

/// Checks the name and namespace of an object that pods refer to.
pub(crate) fn object_name(name: &str, namespace: &str) -> problem::Problems {
    let mut problems = Problems::default();
    let metadata = Path::root("metadata");
    match name {
        "" => problems.required(&metadata.field("name"), "name is needed for pods to refer to it"),
        name => problems.format(&metadata.field("name"), name, format::dns_subdomain(name)),
    }
    problems.format(&metadata.field("namespace"), namespace, format::dns_label(namespace));
    problems.found
}

/// Checks the keys of an object's data.
pub(crate) fn object_keys<'a>(field: &str, keys: impl Iterator<Item = &'a String>) -> problem::Problems {
    let mut problems = Problems::default();
    let path = Path::root(field);
    for key in keys {
        problems.format(&path.key(key), key, format::config_key(key));
    }
    problems.found
}

/// Validates a pod that has its defaults, in the order of the API server. Makes at most `max_problems` problems.
pub(crate) fn validate(pod: &Pod, gates: &Gates, max_problems: usize) -> problem::Problems {
    let mut problems = Problems { found: problem::Problems::at_most(max_problems) };
    let spec = pod.spec.as_ref();
    let missing = Default::default();
    let spec = spec.unwrap_or(&missing);
    metadata::metadata(&pod.metadata, &Path::root("metadata"), &mut problems);
    metadata::pod_annotations(&pod.metadata, spec, &mut problems);
    spec::spec(spec, &pod.metadata, gates, &mut problems);
    spec::only_for_pods(spec, &mut problems);
    spec::only_on_creation(spec, &pod.metadata, &mut problems);
    problems.found
}
