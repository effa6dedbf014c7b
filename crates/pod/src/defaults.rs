//! Defaults that the API server fills in (R-DEF-1).

pub(crate) mod resources;
mod volume;

use k8s_openapi::{
    api::core::v1::{
        Container, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, Pod, Probe, ResourceFieldSelector,
    },
    apimachinery::pkg::api::resource::Quantity,
};

use crate::image::is_latest;

/// Fills in the fields that the user left out. Fields that are set stay (R-DEF-4).
pub(crate) fn fill(pod: &mut Pod) {
    text(&mut pod.metadata.namespace, "default");
    let spec = pod.spec.get_or_insert_default();
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    let grace = spec.termination_grace_period_seconds.get_or_insert(30);
    if *grace < 0 {
        *grace = 1; // R-ID-12
    }
    // `serviceAccount` is the old name of `serviceAccountName`; the new one wins (R-ID-13).
    spec.service_account_name = spec.service_account_name.take().or_else(|| spec.service_account.take());
    spec.service_account.clone_from(&spec.service_account_name);
    let host_network = spec.host_network.unwrap_or(false);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        fill_container(container);
        resources::requests_from_limits(container.resources.get_or_insert_default());
        if host_network {
            for port in container.ports.iter_mut().flatten() {
                port.host_port.get_or_insert(port.container_port);
            }
        }
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        fill_ephemeral(container);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volume::fill(volume);
    }
    if let Some(overhead) = &mut spec.overhead {
        resources::round(overhead);
    }
    resources::fill_pod(spec);
}

/// Sets a text that is not set.
fn text(field: &mut Option<String>, default: &str) {
    field.get_or_insert_with(|| default.to_owned());
}

fn pull_policy(reference: Option<&str>) -> &'static str {
    if is_latest(reference.unwrap_or_default()) { "Always" } else { "IfNotPresent" }
}

fn fill_container(container: &mut Container) {
    text(&mut container.image_pull_policy, pull_policy(container.image.as_deref()));
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(fill_variable);
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(fill_probe);
    container.lifecycle.iter_mut().for_each(fill_lifecycle);
    let resources = container.resources.get_or_insert_default();
    [&mut resources.limits, &mut resources.requests].into_iter().flatten().for_each(resources::round);
}

/// Fills in an ephemeral container. Unlike other containers, it may not set resources, and gets no requests.
fn fill_ephemeral(container: &mut EphemeralContainer) {
    text(&mut container.image_pull_policy, pull_policy(container.image.as_deref()));
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    container.env.iter_mut().flatten().for_each(fill_variable);
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(fill_probe);
    container.lifecycle.iter_mut().for_each(fill_lifecycle);
    container.resources.get_or_insert_default();
}

fn fill_variable(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else { return };
    if let Some(field) = &mut source.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        fill_resource_ref(resource);
    }
    if let Some(key) = &mut source.file_key_ref {
        key.optional.get_or_insert(false);
    }
}

fn fill_resource_ref(resource: &mut ResourceFieldSelector) {
    resource.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
}

fn fill_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    probe.http_get.iter_mut().for_each(fill_http);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn fill_lifecycle(lifecycle: &mut Lifecycle) {
    for hook in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
        hook.http_get.iter_mut().for_each(fill_http);
    }
}

fn fill_http(action: &mut HTTPGetAction) {
    text(&mut action.path, "/");
    text(&mut action.scheme, "HTTP");
}
