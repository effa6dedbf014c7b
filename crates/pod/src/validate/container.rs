//! What the API server objects to in a container.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    Problems,
    format::{dns_label, env_name, port_name},
};
use crate::quantity;

pub(super) fn container(
    container: &Container,
    path: &str,
    volumes: &BTreeSet<&str>,
    host_network: bool,
    problems: &mut Problems<'_>,
) {
    match container.name.as_str() {
        "" => problems.required(format!("{path}.name")),
        name => problems.checked(format!("{path}.name"), name, dns_label),
    }
    match container.image.as_deref() {
        None | Some("") => problems.required(format!("{path}.image")),
        Some(image) if image.trim() != image => {
            problems.invalid(format!("{path}.image"), image, "must not have leading or trailing whitespace");
        }
        Some(_) => {}
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    problems.one_of(&format!("{path}.imagePullPolicy"), container.image_pull_policy.as_deref(), &policies);
    if let Some(directory) = container.working_dir.as_deref().filter(|it| !it.is_empty() && !it.starts_with('/')) {
        problems.invalid(format!("{path}.workingDir"), directory, "must be an absolute path");
    }
    ports(container, path, host_network, problems);
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let field = format!("{path}.env[{index}].name");
        match variable.name.as_str() {
            "" => problems.required(field),
            name => problems.checked(field, name, env_name),
        }
    }
    mounts(container, path, volumes, problems);
    if let Some(resources) = &container.resources {
        self::resources(resources, path, problems);
    }
}

fn ports(container: &Container, path: &str, host_network: bool, problems: &mut Problems<'_>) {
    let mut names = BTreeSet::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let is_port = |number: i32| (1..=65535).contains(&number);
        if !is_port(port.container_port) {
            let detail = "must be between 1 and 65535, inclusive";
            problems.invalid(format!("{path}.containerPort"), port.container_port, detail);
        }
        if let Some(host_port) = port.host_port.filter(|number| *number != 0) {
            if !is_port(host_port) {
                problems.invalid(format!("{path}.hostPort"), host_port, "must be between 1 and 65535, inclusive");
            } else if host_network && host_port != port.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                problems.invalid(format!("{path}.hostPort"), host_port, detail);
            }
        }
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err())
        {
            problems.invalid(
                format!("{path}.hostIP"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        problems.one_of(&format!("{path}.protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            problems.checked(format!("{path}.name"), name, port_name);
            if !names.insert(name) {
                problems.duplicate(format!("{path}.name"), name);
            }
        }
    }
}

/// No two containers of a pod use one port of the node (R-VAL-31).
pub(super) fn host_ports(container: &Container, path: &str, seen: &mut BTreeSet<String>, problems: &mut Problems<'_>) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let Some(host_port) = port.host_port.filter(|number| *number != 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let use_ = format!("{protocol}/{}/{host_port}", port.host_ip.as_deref().unwrap_or_default());
        if !seen.insert(use_.clone()) {
            problems.duplicate(format!("{path}.ports[{index}].hostPort"), use_);
        }
    }
}

fn mounts(container: &Container, path: &str, volumes: &BTreeSet<&str>, problems: &mut Problems<'_>) {
    let mut targets = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        match mount.name.as_str() {
            "" => problems.required(format!("{path}.name")),
            name if !volumes.contains(name) => {
                problems.add(
                    format!("{path}.name"),
                    format!("Not found: {name:?}: spec.volumes has no volume of that name"),
                );
            }
            _ => {}
        }
        match mount.mount_path.as_str() {
            "" => problems.required(format!("{path}.mountPath")),
            target if !targets.insert(target) => {
                problems.invalid(format!("{path}.mountPath"), target, "must be unique")
            }
            target if target.contains(':') => {
                problems.invalid(format!("{path}.mountPath"), target, "must not contain ':'")
            }
            target if !target.starts_with('/') => {
                problems.invalid(format!("{path}.mountPath"), target, "must be an absolute path");
            }
            _ => {}
        }
    }
}

fn resources(resources: &ResourceRequirements, path: &str, problems: &mut Problems<'_>) {
    let (limits, requests) = (resources.limits.as_ref(), resources.requests.as_ref());
    let limits = quantities(limits, &format!("{path}.resources.limits"), problems);
    let requests = quantities(requests, &format!("{path}.resources.requests"), problems);
    for (name, (request, milli)) in &requests {
        if let Some((limit, most)) = limits.get(name).filter(|(_, most)| milli > most) {
            debug_assert!(milli > most);
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            problems.invalid(format!("{path}.resources.requests"), request, detail);
        }
    }
}

fn quantities<'a>(
    list: Option<&'a BTreeMap<String, Quantity>>,
    path: &str,
    problems: &mut Problems<'_>,
) -> BTreeMap<&'a str, (&'a str, u128)> {
    let mut read = BTreeMap::new();
    for (name, quantity) in list.into_iter().flatten() {
        match quantity::milli(&quantity.0) {
            Some(milli) => {
                read.insert(name.as_str(), (quantity.0.as_str(), milli));
            }
            None if quantity.0.starts_with('-') => {
                problems.invalid(format!("{path}.{name}"), &quantity.0, "must be greater than or equal to 0");
            }
            None => {
                let detail = "must be a quantity such as 500m, 2, 64Mi or 1G";
                problems.invalid(format!("{path}.{name}"), &quantity.0, detail);
            }
        }
    }
    read
}
