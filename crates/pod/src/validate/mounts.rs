//! Validates mounts and devices of a container as the API server does.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{
    format::{descending_path, no_backsteps},
    path::Path,
    problems::Problems,
    spec::Pod,
};

pub(super) fn mounts(container: &Container, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let devices: BTreeMap<_, _> =
        container.volume_devices.iter().flatten().map(|it| (&it.name, &it.device_path)).collect();
    let is_privileged = container.security_context.as_ref().and_then(|it| it.privileged) == Some(true);
    let mut targets = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let list = path;
        let path = path.index(index);
        let (name, target) = (mount.name.as_str(), mount.mount_path.as_str());
        if name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        if !pod.volumes.contains_key(name) {
            problems.not_found(&path.field("name"), name, "");
        }
        if target.is_empty() {
            problems.required(&path.field("mountPath"), "");
        }
        if !targets.insert(target) {
            problems.invalid(&path.field("mountPath"), target, "must be unique");
        }
        if devices.contains_key(&mount.name) {
            problems.invalid(&path.field("name"), name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|device| *device == target) {
            problems.invalid(&path.field("mountPath"), target, "must not already exist as a path in volumeDevices");
        }
        // From here on the server omits the index.
        if let Some(sub_path) = &mount.sub_path {
            problems.format(&list.field("subPath"), sub_path, descending_path(sub_path));
        }
        if let Some(expression) = &mount.sub_path_expr {
            if mount.sub_path.is_some() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                problems.invalid(&path.field("subPathExpr"), expression, detail);
            }
            problems.format(&list.field("subPathExpr"), expression, descending_path(expression));
        }
        if let Some(propagation) = mount.mount_propagation.as_deref() {
            let field = list.field("mountPropagation");
            problems.one_of_if_set(&field, Some(propagation), &["Bidirectional", "HostToContainer", "None"]);
            if propagation == "Bidirectional" && !is_privileged {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                problems.forbidden(&field, detail);
            }
        }
        recursive_read_only(mount, &list.field("recursiveReadOnly"), problems);
    }
}

fn recursive_read_only(mount: &VolumeMount, path: &Path<'_>, problems: &mut Problems) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                problems.forbidden(path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|propagation| propagation != "None") {
                problems.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => problems.unsupported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

pub(super) fn devices(container: &Container, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let mounts: BTreeMap<_, _> =
        container.volume_mounts.iter().flatten().map(|it| (&it.name, &it.mount_path)).collect();
    let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
    for (index, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.index(index);
        let (name, target) = (device.name.as_str(), device.device_path.as_str());
        if name.is_empty() {
            problems.required(&path.field("name"), "");
        }
        if names.contains(name) {
            problems.invalid(&path.field("name"), name, "must be unique");
        }
        match pod.volumes.get(name) {
            None => problems.not_found(&path.field("name"), name, ""),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                problems.invalid(&path.field("name"), name, detail);
            }
            Some(_) => {}
        }
        if target.is_empty() {
            problems.required(&path.field("devicePath"), "");
        }
        if targets.contains(target) {
            problems.invalid(&path.field("devicePath"), target, "must be unique");
        }
        if no_backsteps(target).is_empty() {
            targets.insert(target);
        } else {
            problems.invalid(&path.field("devicePath"), target, "can not contain backsteps ('..')");
        }
        if mounts.contains_key(&device.name) {
            problems.invalid(&path.field("name"), name, "must not already exist in volumeMounts");
        }
        if mounts.values().any(|mount| *mount == target) {
            problems.invalid(&path.field("devicePath"), target, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
