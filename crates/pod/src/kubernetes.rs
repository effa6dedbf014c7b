//! What a Kubernetes API server says to a manifest, complete and in its own words, whatever of it this node can execute.
//! Measured against recordings of a real one (`tests/golden`).

use k8s_openapi::api::core::v1::Pod;

use crate::{Origin, Problem, budget::Budget, document, limits, prepare, problem::Problems, validate};

/// Features of Kubernetes that are off by default. Fields behind a closed gate are dropped unseen, values refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gates {
    /// `projected.sources[].clusterTrustBundle`.
    pub cluster_trust_bundles: bool,
    /// `projected.sources[].podCertificate`.
    pub pod_certificates: bool,
    /// `lifecycle.stopSignal`.
    pub stop_signals: bool,
    /// Tolerations' operators `Gt` and `Lt`.
    pub toleration_comparison: bool,
    /// `spec.schedulingGroup`.
    pub scheduling_groups: bool,
    /// `hostUsers: false` together with `hostNetwork: true`.
    pub user_namespaces_with_host_network: bool,
    /// `dataSourceRef.namespace`.
    pub cross_namespace_data_sources: bool,
    /// `seLinuxChangePolicy: MountOption`.
    pub se_linux_mount: bool,
}

impl Gates {
    /// All of them open.
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

/// What the server says to one object of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It makes this pod.
    Accepted(Box<Pod>),
    /// It cannot read it: unknown fields, repeated keys, wrong types.
    NotDecodable(Vec<Problem>),
    /// It reads and refuses it. Problems in the server's order, with its paths.
    Invalid(Vec<Problem>),
}

/// What the server says to each object of a manifest, sent as a pod, in the file's order.
///
/// # Errors
/// The file is no text, no YAML or JSON, or holds no pod.
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
    // The server is called at an address that says it.
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

/// What the server objects to in a pod with defaults. At most `room` problems are made.
pub(crate) fn objections(pod: &Pod, gates: &Gates, room: usize) -> Problems {
    let mut pod = pod.clone();
    prepare::prepare(&mut pod, gates);
    validate::validate(&pod, gates, room)
}
