//! Answers manifests as a Kubernetes API server does, completely and in its words, whether or not this node can execute
//! them. Tests compare the answers with recordings of a real server (`tests/golden`).

use k8s_openapi::api::core::v1::Pod;

use crate::{Origin, Problem, budget::Budget, document, limits, prepare, problem::Problems, validate};

/// Feature gates of Kubernetes that are off by default. If a gate is closed, its fields are dropped without validation,
/// and its values are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// Gate of `projected.sources[].clusterTrustBundle`.
    pub cluster_trust_bundles: bool,
    /// Gate of `projected.sources[].podCertificate`.
    pub pod_certificates: bool,
    /// Gate of `lifecycle.stopSignal`.
    pub stop_signals: bool,
    /// Gate of the operators `Gt` and `Lt` of tolerations.
    pub toleration_comparison: bool,
    /// Gate of `spec.schedulingGroup`.
    pub scheduling_groups: bool,
    /// Gate of `hostUsers: false` together with `hostNetwork: true`.
    pub user_namespaces_with_host_network: bool,
    /// Gate of `dataSourceRef.namespace`.
    pub cross_namespace_data_sources: bool,
    /// Gate of `seLinuxChangePolicy: MountOption`.
    pub se_linux_mount: bool,
}

impl Gates {
    /// Returns gates that are all open.
    #[must_use]
    pub fn open() -> Self {
        Self {
            cluster_trust_bundles: true,
            pod_certificates: true,
            stop_signals: true,
            toleration_comparison: true,
            scheduling_groups: true,
            user_namespaces_with_host_network: true,
            cross_namespace_data_sources: true,
            se_linux_mount: true,
        }
    }
}

/// Server's answer to one object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Pod that the server creates.
    Accepted(Box<Pod>),
    /// Decoding errors: unknown fields, duplicate keys, wrong types.
    NotDecodable(Vec<Problem>),
    /// Validation errors, in the server's order, with its paths.
    Invalid(Vec<Problem>),
}

/// Returns the server's answer to each object of a manifest, sent as a pod, in the file's order.
///
/// # Errors
/// The file is not text, is neither YAML nor JSON, or holds no pod.
pub fn judge(manifest: &[u8], gates: &Gates) -> Result<Vec<Answer>, Vec<Problem>> {
    let documents = document::documents(&document::text(manifest)?, Origin::File)?;
    Ok(documents.iter().map(|document| answer(document, gates)).collect())
}

fn answer(document: &document::Document, gates: &Gates) -> Answer {
    if let Some(kind) = document.object {
        let message = format!("{} is no Pod", kind.name());
        let mut problems = Problems::default();
        problems.push(Problem { message, ..Problem::default() });
        return Answer::NotDecodable(document.located(problems).into_list("problems"));
    }
    // The URL of the request already has the version: `apiVersion` may be missing or empty.
    let version = document.node.get("apiVersion").filter(|version| version.text() != Some(""));
    if version.is_some()
        && let Err(problems) = document.check_version("Pod", limits::PROBLEMS)
    {
        return Answer::NotDecodable(problems.into_list("problems"));
    }
    let mut pod = match document.typed(limits::PROBLEMS, &mut Budget::default()) {
        Ok(typed) if typed.strict.is_empty() => typed.pod,
        Ok(typed) => return Answer::NotDecodable(typed.strict.into_list("problems")),
        Err(problems) => return Answer::NotDecodable(problems.into_list("problems")),
    };
    crate::defaults::fill(&mut pod);
    prepare::prepare(&mut pod, gates);
    let problems = validate::validate(&pod, gates, limits::PROBLEMS);
    prepare::tidy(&mut pod);
    match problems.is_empty() {
        true => Answer::Accepted(Box::new(pod)),
        false => Answer::Invalid(document.located(problems).into_list("problems")),
    }
}

/// Returns the server's objections to a pod with defaults. Makes at most `max_problems` problems.
pub(crate) fn objections(pod: &Pod, gates: &Gates, max_problems: usize) -> Problems {
    let mut pod = pod.clone();
    prepare::prepare(&mut pod, gates);
    validate::validate(&pod, gates, max_problems)
}
