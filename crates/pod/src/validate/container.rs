//! Validates containers of all kinds as the API server does.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerResizePolicy, ContainerRestartRule};

use super::{
    env,
    format::dns_label,
    mounts,
    path::Path,
    ports, probes,
    problems::{Problems, Typed},
    resources, security,
    spec::Pod,
};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

pub(super) fn containers(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let containers = &pod.spec.containers;
    if containers.is_empty() {
        return problems.required(path, "");
    }
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(container, pod, &path, problems);
        if !names.insert(container.name.as_str()) {
            problems.duplicate(&path.field("name"), &container.name);
        }
        probes::of_container(container, pod, &path, problems);
        restarts(container, &path, problems);
    }
    // Host ports are compared over all containers: they run at the same time.
    let mut host_ports = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        ports::host_ports(container.ports.as_deref(), &path.field("ports"), &mut host_ports, problems);
    }
}

pub(super) fn init_containers(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let mut names: BTreeSet<_> = pod.spec.containers.iter().map(|container| container.name.as_str()).collect();
    for (index, container) in pod.spec.init_containers.iter().flatten().enumerate() {
        let list = path;
        let path = path.index(index);
        common(container, pod, &path, problems);
        restarts(container, &path, problems);
        if names.contains(container.name.as_str()) {
            problems.duplicate(&path.field("name"), &container.name);
        } else if !container.name.is_empty() {
            names.insert(&container.name);
        }
        // Host ports are checked for each init container alone: they run one after another. The server gives every one
        // of them the first one's path.
        let first = list.index(0);
        ports::host_ports(container.ports.as_deref(), &first.field("ports"), &mut BTreeSet::new(), problems);
        if container.restart_policy.as_deref() == Some("Always") {
            probes::of_container(container, pod, &path, problems);
            continue;
        }
        let forbidden = [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ];
        for (field, _) in forbidden.into_iter().filter(|(_, is_set)| *is_set) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            problems.forbidden(&path.field(field), detail);
        }
        for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
            if policy.restart_policy == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                let path = path.field("resizePolicy");
                problems.invalid(&path.index(index).field("restartPolicy"), &policy.restart_policy, detail);
            }
        }
    }
}

/// Checks the rules that hold for containers of every kind.
pub(super) fn common(container: &Container, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    match container.name.as_str() {
        "" => problems.required(&path.field("name"), ""),
        name => problems.format(&path.field("name"), name, dns_label(name)),
    }
    if container.image.is_none() {
        problems.required(&path.field("image"), "");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = container.termination_message_policy.as_deref();
    problems.one_of(&path.field("terminationMessagePolicy"), policy, &policies);
    ports::ports(container.ports.as_deref(), &path.field("ports"), problems);
    env::variables(container.env.as_deref(), &path.field("env"), problems);
    env::sources(container.env_from.as_deref(), &path.field("envFrom"), problems);
    mounts::mounts(container, pod, &path.field("volumeMounts"), problems);
    mounts::devices(container, pod, &path.field("volumeDevices"), problems);
    problems.one_of(&path.field("imagePullPolicy"), container.image_pull_policy.as_deref(), &PULL_POLICIES);
    if let Some(resources) = &container.resources {
        resources::of_container(resources, &pod.claims, &path.field("resources"), problems);
    }
    resize(container.resize_policy.as_deref(), pod, &path.field("resizePolicy"), problems);
    security::container(container.security_context.as_ref(), pod, &path.field("securityContext"), problems);
}

fn resize(policies: Option<&[ContainerResizePolicy]>, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (index, policy) in policies.unwrap_or_default().iter().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            problems.duplicate(&path.index(index), Typed(&policy.resource_name));
        }
        problems.one_of(path, Some(&policy.resource_name), &["cpu", "memory"]);
        problems.one_of(path, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"]);
        if pod.spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            problems.invalid(path, Typed(&policy.restart_policy), detail);
        }
    }
}

/// Checks a container's own restart policy, and its rules by exit code (R-VAL-25).
fn restarts(container: &Container, path: &Path<'_>, problems: &mut Problems) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match container.restart_policy.as_deref() {
        None if rules.is_empty() => {}
        None => {
            let detail = "must specify restartPolicy when restart rules are used";
            return problems.required(&path.field("restartPolicy"), detail);
        }
        policy => {
            let policies = ["Always", "Never", "OnFailure"];
            problems.one_of_if_set(&path.field("restartPolicy"), policy, &policies);
        }
    }
    let path = path.field("restartPolicyRules");
    if rules.len() > 20 {
        problems.too_many(&path, rules.len(), 20);
    }
    for (index, rule) in rules.iter().enumerate() {
        restart_rule(rule, &path.index(index), problems);
    }
}

fn restart_rule(rule: &ContainerRestartRule, path: &Path<'_>, problems: &mut Problems) {
    let actions = ["Restart", "RestartAllContainers"];
    problems.one_of_if_set(&path.field("action"), Some(&rule.action), &actions);
    let path = path.field("exitCodes");
    let Some(codes) = &rule.exit_codes else { return problems.required(&path, "must be specified") };
    problems.one_of_if_set(&path.field("operator"), Some(&codes.operator), &["In", "NotIn"]);
    let count = codes.values.as_ref().map_or(0, Vec::len);
    if count > 255 {
        problems.too_many(&path.field("values"), count, 255);
    }
}

pub(super) fn image_is_trimmed(image: Option<&str>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(image) = image.filter(|image| image.trim() != *image) {
        problems.invalid(&path.field("image"), image, "must not have leading or trailing whitespace");
    }
}
