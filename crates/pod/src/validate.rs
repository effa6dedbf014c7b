//! What the API server objects to, in its words (R-VAL), for the fields that are executed.

mod container;
mod format;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Volume};

use crate::{Problem, quantity};
use format::{dns_label, dns_subdomain, label_value, qualified_name};

/// Problems, collected.
pub(crate) struct Problems<'a>(&'a mut Vec<Problem>);

impl Problems<'_> {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { field: field.into(), message: message.into(), ..Problem::default() });
    }

    fn required(&mut self, field: impl Into<String>) {
        self.add(field, "Required value");
    }

    fn invalid(&mut self, field: impl Into<String>, value: impl std::fmt::Debug, detail: impl std::fmt::Display) {
        self.add(field, format!("Invalid value: {value:?}: {detail}"));
    }

    fn duplicate(&mut self, field: impl Into<String>, value: impl std::fmt::Debug) {
        self.add(field, format!("Duplicate value: {value:?}"));
    }

    fn one_of(&mut self, field: &str, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value.filter(|value| !allowed.contains(value)) {
            let supported = allowed.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
            self.add(field, format!("Unsupported value: {value:?}: supported values: {supported}"));
        }
    }

    fn checked(&mut self, field: impl Into<String>, value: &str, check: fn(&str) -> Result<(), String>) {
        if let Err(detail) = check(value) {
            self.invalid(field, value, detail);
        }
    }
}

/// Adds what is wrong with a defaulted pod.
pub(crate) fn validate(pod: &Pod, node_name: &str, problems: &mut Vec<Problem>) {
    let mut problems = Problems(problems);
    metadata(pod, node_name, &mut problems);
    match &pod.spec {
        Some(spec) => self::spec(spec, &mut problems),
        None => problems.required("spec"),
    }
}

fn metadata(pod: &Pod, node_name: &str, problems: &mut Problems<'_>) {
    let metadata = &pod.metadata;
    match metadata.name.as_deref() {
        None | Some("") => problems.add("metadata.name", "Required value: name is needed for the pod"),
        Some(name) => {
            problems.checked("metadata.name", name, dns_subdomain);
            let longest = 253_usize.saturating_sub(node_name.len() + 1);
            if name.len() > longest && name.len() <= 253 {
                let detail = format!("with the node's name -{node_name} it must be no more than 253 bytes");
                problems.invalid("metadata.name", name, detail);
            }
        }
    }
    problems.checked("metadata.namespace", metadata.namespace.as_deref().unwrap_or_default(), dns_label);
    for (key, value) in metadata.labels.iter().flatten() {
        problems.checked("metadata.labels", key, qualified_name);
        problems.checked("metadata.labels", value, label_value);
    }
    let annotations = metadata.annotations.iter().flatten();
    if annotations.clone().map(|(key, value)| key.len() + value.len()).sum::<usize>() > 262_144 {
        problems.add("metadata.annotations", "Too long: may not be more than 262144 bytes");
    }
    for (key, _) in annotations {
        problems.checked("metadata.annotations", &key.to_lowercase(), qualified_name);
    }
    let is_plain = |uid: &str| uid.len() <= 63 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if let Some(uid) = metadata.uid.as_deref().filter(|uid| !is_plain(uid)) {
        problems.invalid("metadata.uid", uid, "must consist of at most 63 alphanumeric characters or '-'");
    }
}

fn spec(spec: &PodSpec, problems: &mut Problems<'_>) {
    let mut volumes = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        self::volume(volume, &path, problems);
        if !volumes.insert(volume.name.as_str()) {
            problems.duplicate(format!("{path}.name"), &volume.name);
        }
    }
    if spec.containers.is_empty() {
        problems.required("spec.containers");
    }
    let mut names = BTreeSet::new();
    let mut host_ports = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = format!("spec.containers[{index}]");
        container::container(container, &path, &volumes, spec.host_network == Some(true), problems);
        container::host_ports(container, &path, &mut host_ports, problems);
        if !names.insert(container.name.as_str()) {
            problems.duplicate(format!("{path}.name"), &container.name);
        }
    }
    let policies = ["Always", "OnFailure", "Never"];
    problems.one_of("spec.restartPolicy", spec.restart_policy.as_deref(), &policies);
    if let Some(hostname) = &spec.hostname {
        problems.checked("spec.hostname", hostname, dns_label);
    }
    if let Some(class) = &spec.runtime_class_name {
        problems.checked("spec.runtimeClassName", class, dns_subdomain);
    }
}

fn volume(volume: &Volume, path: &str, problems: &mut Problems<'_>) {
    match volume.name.as_str() {
        "" => problems.required(format!("{path}.name")),
        name => problems.checked(format!("{path}.name"), name, dns_label),
    }
    if volume.host_path.is_some() && volume.empty_dir.is_some() {
        problems.add(format!("{path}.hostPath"), "Forbidden: may not specify more than 1 volume type");
    }
    if let Some(host_path) = &volume.host_path {
        let field = format!("{path}.hostPath.path");
        match host_path.path.as_str() {
            "" => problems.required(field),
            target if target.split('/').any(|step| step == "..") => {
                problems.invalid(field, target, "must not contain '..'")
            }
            target if !target.starts_with('/') => problems.invalid(field, target, "must be an absolute path"),
            _ => {}
        }
        let kinds =
            ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
        problems.one_of(&format!("{path}.hostPath.type"), host_path.type_.as_deref(), &kinds);
    }
    if let Some(empty_dir) = &volume.empty_dir {
        problems.one_of(&format!("{path}.emptyDir.medium"), empty_dir.medium.as_deref(), &["", "Memory"]);
        if empty_dir.size_limit.as_ref().is_some_and(|size| quantity::milli(&size.0).is_none()) {
            let field = format!("{path}.emptyDir.sizeLimit");
            problems.add(field, "Forbidden: SizeLimit field must be a valid resource quantity");
        }
    }
}
