//! Validates the resources of a pod as a whole as the API server does (R-VAL-83).

use super::{
    path::Path,
    problems::Problems,
    resources::{amounts, any_name, claims, read},
    spec::Pod,
};
use crate::defaults::resources::{is_huge, is_of_pods, summed};

pub(super) fn resources(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let spec = pod.spec;
    let Some(own) = &spec.resources else { return };
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return problems.forbidden(path, "may not be set for a windows pod");
    }
    if own.claims.is_some() {
        problems.forbidden(&path.field("claims"), "claims may not be set for Resources at pod-level");
    }
    amounts(own.limits.as_ref(), own.requests.as_ref(), name, path, problems);
    claims(own.claims.as_deref().unwrap_or_default(), &pod.claims, &path.field("claims"), problems);
    let (limits, requests) = (read(own.limits.as_ref()), read(own.requests.as_ref()));
    for (name, sum) in summed(spec, |resources| resources.requests.as_ref()) {
        if let Some(request) = requests.get(&name).filter(|request| sum > **request) {
            let detail = format_args!("must be greater than or equal to aggregate container requests of {sum}");
            problems.invalid(&path.field("requests").key(&name), request, detail);
        }
    }
    for (name, sum) in summed(spec, |resources| resources.limits.as_ref()).iter().filter(|(name, _)| is_huge(name)) {
        if let Some(limit) = limits.get(name).filter(|limit| sum > *limit) {
            let detail = format_args!("must be greater than or equal to aggregate container limits of {sum}");
            problems.invalid(&path.field("limits").key(name), limit, detail);
        }
    }
    // In the server's paths the containers are below the pod's resources.
    let path = path.field("containers");
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.index(index);
        for (name, limit) in &read(container.resources.as_ref().and_then(|it| it.limits.as_ref())) {
            if let Some(most) = limits.get(name).filter(|most| limit > *most) {
                let detail = format_args!("must be less than or equal to pod limits of {most}");
                problems.invalid(&path.key(name).field("limits"), limit, detail);
            }
        }
    }
}

fn name(name: &str, path: &Path<'_>, problems: &mut Problems) {
    if any_name(name, path, problems) && !is_of_pods(name) {
        problems.unsupported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}
