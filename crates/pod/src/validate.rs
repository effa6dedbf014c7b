//! What the API server objects to, in its words and its order (R-VAL).

mod affinity;
mod container;
mod dns;
mod env;
mod ephemeral;
mod format;
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

use crate::{Problem, kubernetes::Gates};
use path::Path;
use problems::Problems;

/// What is wrong with a pod that has its defaults, in the order in which the API server looks.
pub(crate) fn validate(pod: &Pod, gates: &Gates) -> Vec<Problem> {
    let mut problems = Problems::default();
    let spec = pod.spec.as_ref();
    let missing = Default::default();
    let spec = spec.unwrap_or(&missing);
    metadata::metadata(&pod.metadata, &Path::root("metadata"), &mut problems);
    metadata::pod_annotations(&pod.metadata, spec, &mut problems);
    spec::spec(spec, &pod.metadata, gates, &mut problems);
    spec::only_for_pods(spec, &mut problems);
    spec::only_on_creation(spec, &pod.metadata, &mut problems);
    problems.into_list()
}
