//! Validates ephemeral containers as the API server does. A new pod may not have any, but all their problems are
//! reported.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, ResourceRequirements};

use super::{container, path::Path, problems::Problems, spec::Pod};

pub(super) fn containers(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let others = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().flatten());
    let others: BTreeSet<_> = others.map(|container| container.name.as_str()).collect();
    let mut names = others.clone();
    for (index, container) in pod.spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        container::common(&plain(container), pod, &path, problems);
        container::image_is_trimmed(container.image.as_deref(), &path, problems);
        if !names.insert(container.name.as_str()) {
            problems.duplicate(&path.field("name"), &container.name);
        }
        if let Some(target) = container.target_container_name.as_deref().filter(|target| !others.contains(target)) {
            problems.not_found(&path.field("targetContainerName"), target, "");
        }
        for field in forbidden(container) {
            problems.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
        }
        let path = path.field("volumeMounts");
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let path = path.index(index);
            for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if value.is_some() {
                    problems.forbidden(&path.field(field), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

/// Returns the set fields that an ephemeral container may not have.
fn forbidden(container: &EphemeralContainer) -> impl Iterator<Item = &'static str> {
    let has_resources = container.resources.as_ref().is_some_and(|it| *it != ResourceRequirements::default());
    let fields = [
        ("ports", container.ports.is_some()),
        ("resources", has_resources),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    fields.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field)
}

/// Converts an ephemeral container to a container, with the fields that both have.
fn plain(container: &EphemeralContainer) -> Container {
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        termination_message_policy: container.termination_message_policy.clone(),
        ports: container.ports.clone(),
        env: container.env.clone(),
        env_from: container.env_from.clone(),
        volume_mounts: container.volume_mounts.clone(),
        volume_devices: container.volume_devices.clone(),
        image_pull_policy: container.image_pull_policy.clone(),
        resources: container.resources.clone(),
        resize_policy: container.resize_policy.clone(),
        security_context: container.security_context.clone(),
        ..Container::default()
    }
}
