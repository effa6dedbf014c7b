//! Validates a pod's spec as the API server does, in its order.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, PodResourceClaim, PodSpec, SecurityContext, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    affinity, container, dns, env, ephemeral,
    format::{dns_label, dns_subdomain, qualified_name},
    metadata,
    path::Path,
    pod_resources,
    problems::Problems,
    resources, security, tolerations, volumes, windows,
};
use crate::kubernetes::Gates;

/// Data of the pod that the checks of its containers need.
pub(super) struct Pod<'a> {
    pub spec: &'a PodSpec,
    /// Valid volumes, by name.
    pub volumes: BTreeMap<&'a str, &'a Volume>,
    /// Names of `spec.resourceClaims`.
    pub claims: BTreeSet<&'a str>,
    pub gates: &'a Gates,
    pub grace: i64,
}

impl Pod<'_> {
    pub fn uses_host_users(&self) -> bool {
        self.spec.host_users != Some(false)
    }

    pub fn os(&self) -> &str {
        self.spec.os.as_ref().map_or("", |os| os.name.as_str())
    }
}

pub(super) fn spec(spec: &PodSpec, meta: &ObjectMeta, gates: &Gates, problems: &mut Problems) {
    let path = Path::root("spec");
    let volumes = volumes::volumes(spec.volumes.as_deref(), meta, gates, &path.field("volumes"), problems);
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    self::claims(claims, &path.field("resourceClaims"), problems);
    let claims = claims.iter().map(|claim| claim.name.as_str()).filter(|name| !name.is_empty()).collect();
    let grace = spec.termination_grace_period_seconds.unwrap_or_default();
    let pod = Pod { spec, volumes, claims, gates, grace };
    container::containers(&pod, &path.field("containers"), problems);
    container::init_containers(&pod, &path.field("initContainers"), problems);
    ephemeral::containers(&pod, &path.field("ephemeralContainers"), problems);
    pod_resources::resources(&pod, &path.field("resources"), problems);
    host_network_ports(spec, &path.field("containers"), problems);
    let policies = ["Always", "OnFailure", "Never"];
    problems.one_of(&path.field("restartPolicy"), spec.restart_policy.as_deref(), &policies);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    problems.one_of(&path.field("dnsPolicy"), spec.dns_policy.as_deref(), &policies);
    metadata::labels(spec.node_selector.as_ref(), &path.field("nodeSelector"), problems);
    security::pod(spec, gates, &path.field("securityContext"), problems);
    affinity::affinity(spec.affinity.as_ref(), &path.field("affinity"), problems);
    dns::config(spec, &path.field("dnsConfig"), problems);
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let field = path.field("readinessGates");
        let field = field.index(index);
        problems.format(&field.field("conditionType"), &gate.condition_type, qualified_name(&gate.condition_type));
    }
    scheduling_gates(spec, &path.field("schedulingGates"), problems);
    affinity::spread(spec, &path.field("topologySpreadConstraints"), problems);
    windows::host_process(spec, &path, problems);
    host_users(&pod, &path, problems);
    dns::hostname_override(spec, &path.field("hostnameOverride"), problems);
    names(spec, &path, problems);
    tolerations::tolerations(spec.tolerations.as_deref(), gates, &path.field("tolerations"), problems);
    dns::host_aliases(spec, &path.field("hostAliases"), problems);
    let classes = [("priorityClassName", &spec.priority_class_name), ("runtimeClassName", &spec.runtime_class_name)];
    for (field, name) in classes {
        if let Some(name) = name {
            problems.format(&path.field(field), name, dns_subdomain(name));
        }
    }
    if let Some(policy) = &spec.preemption_policy {
        let policies = ["PreemptLowerPriority", "Never"];
        problems.one_of(&path.field("preemptionPolicy"), Some(policy), &policies);
    }
    if let Some(overhead) = &spec.overhead {
        resources::overhead(overhead, &path.field("overhead"), problems);
    }
    windows::os(&pod, &path, problems);
    env::file_volumes(&pod, &path, problems);
    if let Some(group) = &spec.scheduling_group {
        let field = path.field("schedulingGroup");
        let field = field.field("podGroupName");
        match &group.pod_group_name {
            None => problems.invalid(&field, serde_json::Value::Null, "must specify one of: `podGroupName`"),
            Some(name) => problems.format(&field, name, dns_subdomain(name)),
        }
    }
}

fn claims(claims: &[PodResourceClaim], path: &Path<'_>, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        let field = path.field("name");
        match claim.name.as_str() {
            "" => problems.required(&field, ""),
            name if !names.insert(name) => problems.duplicate(&field, name),
            name => problems.format(&field, name, dns_label(name)),
        }
        let (claimed, template) = (&claim.resource_claim_name, &claim.resource_claim_template_name);
        // The server shows its own structure here, with Go's names.
        let value = || {
            let (name, claimed, template) = (&claim.name, serde_json::json!(claimed), serde_json::json!(template));
            serde_json::json!({ "Name": name, "ResourceClaimName": claimed, "ResourceClaimTemplateName": template })
        };
        match (claimed, template) {
            (Some(_), Some(_)) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                problems.invalid(&path, value(), detail);
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                problems.invalid(&path, value(), detail);
            }
            _ => {}
        }
        if let Some(name) = claimed {
            problems.format(&path.field("resourceClaimName"), name, dns_subdomain(name));
        }
        if let Some(name) = template {
            problems.format(&path.field("resourceClaimTemplateName"), name, dns_subdomain(name));
        }
    }
}

/// Checks that with `hostNetwork` every `hostPort` equals its `containerPort` (R-VAL-32).
fn host_network_ports(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.index(index);
        let path = path.field("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or_default();
            if host_port != port.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                problems.invalid(&path.index(index).field("hostPort"), host_port, detail);
            }
        }
    }
}

fn scheduling_gates(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.index(index);
        problems.format(&path, &gate.name, qualified_name(&gate.name));
        if !seen.insert(gate.name.as_str()) {
            problems.duplicate(&path, &gate.name);
        }
    }
}

fn host_users(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    if pod.uses_host_users() {
        return;
    }
    let host_network = pod.spec.host_network.filter(|_| !pod.gates.user_namespaces_with_host_network);
    // The server spells the last two this way.
    for (field, value) in
        [("hostNetwork", host_network), ("HostPID", pod.spec.host_pid), ("HostIPC", pod.spec.host_ipc)]
    {
        if value == Some(true) {
            problems.forbidden(&path.field(field), "when `hostUsers` is false");
        }
    }
    let [containers, init_containers] = lists(pod.spec);
    let kinds = [init_containers, containers].map(|(list, containers)| {
        (list, containers.iter().map(|container| container.volume_devices.as_deref()).collect::<Vec<_>>())
    });
    let ephemeral = pod.spec.ephemeral_containers.iter().flatten();
    let ephemeral = ("ephemeralContainers", ephemeral.map(|container| container.volume_devices.as_deref()).collect());
    for (list, devices) in kinds.into_iter().chain([ephemeral]) {
        let path = path.field(list);
        for (index, _) in devices.iter().enumerate().filter(|(_, devices)| devices.is_some_and(|it| !it.is_empty())) {
            problems.forbidden(&path.index(index).field("volumeDevices"), "when `hostUsers` is false");
        }
    }
}

fn names(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    for (field, name) in [("serviceAccountName", &spec.service_account_name), ("nodeName", &spec.node_name)] {
        if let Some(name) = name {
            problems.format(&path.field(field), name, dns_subdomain(name));
        }
    }
    if let Some(deadline) = spec.active_deadline_seconds {
        problems.within(&path.field("activeDeadlineSeconds"), deadline, 1, i64::from(i32::MAX));
    }
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name {
            problems.format(&path.field(field), name, dns_label(name));
        }
    }
}

/// Checks the rules that hold for pods but not for pod templates.
pub(super) fn only_for_pods(spec: &PodSpec, problems: &mut Problems) {
    let path = Path::root("spec");
    if spec.service_account_name.is_none() {
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            volumes::tokens_without_account(volume, &path.field("volumes").index(index), problems);
        }
    }
    for (list, containers) in lists(spec) {
        for (index, container) in containers.iter().enumerate() {
            let path = path.field(list);
            container::image_is_trimmed(container.image.as_deref(), &path.index(index), problems);
        }
    }
}

/// Checks the rules that hold for new pods only.
pub(super) fn only_on_creation(spec: &PodSpec, meta: &ObjectMeta, problems: &mut Problems) {
    let path = Path::root("spec");
    if spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()) {
        problems.forbidden(&path.field("ephemeralContainers"), "cannot be set on create");
    }
    if spec.node_name.is_some() && spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        let detail = "cannot be set until all schedulingGates have been cleared";
        problems.forbidden(&path.field("nodeName"), detail);
    }
    security::seccomp::agrees_with_annotations(spec, meta, problems);
    security::app_armor::agrees_with_annotations(spec, meta, problems);
}

/// Returns the lists of containers and of init containers.
fn lists(spec: &PodSpec) -> [(&'static str, &[Container]); 2] {
    [("containers", &spec.containers), ("initContainers", spec.init_containers.as_deref().unwrap_or_default())]
}

/// Calls `see` with the name, the security context and the path of every container: init containers first.
pub(super) fn visit(spec: &PodSpec, see: &mut dyn FnMut(&str, Option<&SecurityContext>, &Path<'_>)) {
    let path = Path::root("spec");
    let [containers, init_containers] = lists(spec);
    for (list, containers) in [init_containers, containers] {
        let path = path.field(list);
        for (index, container) in containers.iter().enumerate() {
            see(&container.name, container.security_context.as_ref(), &path.index(index));
        }
    }
    let path = path.field("ephemeralContainers");
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        see(&container.name, container.security_context.as_ref(), &path.index(index));
    }
}

/// Returns the names of all containers of any kind.
pub(super) fn container_names(spec: &PodSpec) -> impl Iterator<Item = &str> {
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|it| it.name.as_str());
    plain.chain(spec.ephemeral_containers.iter().flatten().map(|it| it.name.as_str()))
}
