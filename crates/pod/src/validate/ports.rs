//! Validates ports as the API server does.

use std::collections::BTreeSet;

use k8s_openapi::{api::core::v1::ContainerPort, apimachinery::pkg::util::intstr::IntOrString};

use super::{format::port_name, path::Path, problems::Problems};

const LARGEST: i64 = 65535;

pub(super) fn ports(ports: Option<&[ContainerPort]>, path: &Path<'_>, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref() {
            let field = path.field("name");
            let objections = port_name(name);
            if !objections.is_empty() {
                problems.format(&field, name, objections);
            } else if !names.insert(name) {
                problems.duplicate(&field, name);
            }
        }
        match port.container_port {
            0 => problems.required(&path.field("containerPort"), ""),
            number => problems.within(&path.field("containerPort"), number.into(), 1, LARGEST),
        }
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            problems.within(&path.field("hostPort"), number.into(), 1, LARGEST);
        }
        problems.one_of(&path.field("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    }
}

/// Checks that no two ports have the same host port (R-VAL-31).
pub(super) fn host_ports(
    ports: Option<&[ContainerPort]>,
    path: &Path<'_>,
    seen: &mut BTreeSet<String>,
    problems: &mut Problems,
) {
    for (index, port) in ports.unwrap_or_default().iter().enumerate() {
        let Some(number) = port.host_port.filter(|number| *number != 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or_default();
        let used = format!("{protocol}/{}/{number}", port.host_ip.as_deref().unwrap_or_default());
        if seen.contains(&used) {
            problems.duplicate(&path.index(index).field("hostPort"), &used);
        } else {
            seen.insert(used);
        }
    }
}

/// Checks a port by number or name, as in probes and hooks.
pub(super) fn number_or_name(port: &IntOrString, path: &Path<'_>, problems: &mut Problems) {
    match port {
        IntOrString::Int(number) => problems.within(path, (*number).into(), 1, LARGEST),
        IntOrString::String(name) => problems.format(path, name, port_name(name)),
    }
}
