//! Volumes and mounts.

use k8s_openapi::api::core::v1 as wire;

use super::{
    env::{field, object, resource},
    pull_policy,
};
use crate::{
    DownwardFile, FsGroup, HostPathKind, Item, Medium, ObjectKind, Problem, Projected, ProjectedKind, Projection,
    Propagation, RecursiveReadOnly, SubPath, Value, Volume, VolumeMount, quantity::Quantity, validate::quoted,
};

pub(super) fn mount(wire: &wire::VolumeMount) -> VolumeMount {
    let path = wire.sub_path.clone().filter(|path| !path.is_empty()).map(SubPath::Path);
    let expression = wire.sub_path_expr.clone().filter(|path| !path.is_empty()).map(SubPath::Expression);
    VolumeMount {
        volume: wire.name.clone(),
        // A relative `mountPath` is relative to the container's root (R-MNT-3).
        path: if wire.mount_path.starts_with('/') { wire.mount_path.clone() } else { format!("/{}", wire.mount_path) },
        read_only: wire.read_only.unwrap_or(false),
        sub_path: path.or(expression),
        propagation: match wire.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::None,
        },
        recursive_read_only: match wire.recursive_read_only.as_deref() {
            Some("Enabled") => RecursiveReadOnly::Enabled,
            Some("IfPossible") => RecursiveReadOnly::IfPossible,
            _ => RecursiveReadOnly::Disabled,
        },
    }
}

pub(super) fn volume(wire: &wire::Volume, pod: &wire::Pod) -> Volume {
    if let Some(source) = &wire.host_path {
        return Volume::HostPath { path: source.path.clone().into(), kind: host_path_kind(source.type_.as_deref()) };
    }
    if let Some(source) = &wire.config_map {
        let of = object_source(ObjectKind::ConfigMap, &source.name, &source.items, source.optional, pod);
        return projected(ProjectedKind::ConfigMap, vec![of], source.default_mode);
    }
    if let Some(source) = &wire.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let of = object_source(ObjectKind::Secret, name, &source.items, source.optional, pod);
        return projected(ProjectedKind::Secret, vec![of], source.default_mode);
    }
    if let Some(source) = &wire.downward_api {
        let of = downward(source.items.as_deref().unwrap_or_default(), pod);
        return projected(ProjectedKind::DownwardApi, vec![of], source.default_mode);
    }
    if let Some(source) = &wire.projected {
        let sources = source.sources.iter().flatten().filter_map(|source| projection(source, pod)).collect();
        return projected(ProjectedKind::Projected, sources, source.default_mode);
    }
    if let Some(source) = &wire.persistent_volume_claim {
        let claim = object(ObjectKind::PersistentVolumeClaim, &source.claim_name, pod);
        return Volume::Claim { claim, read_only: source.read_only.unwrap_or(false) };
    }
    if let Some(source) = &wire.image {
        let reference = source.reference.clone().unwrap_or_default();
        return Volume::Image { reference, pull_policy: pull_policy(source.pull_policy.as_deref()) };
    }
    // A volume without a source is an emptyDir (R-DEF-1).
    let source = wire.empty_dir.as_ref();
    let size = source.and_then(|it| it.size_limit.as_ref()).and_then(|it| Quantity::parse(&it.0).ok()?.milli());
    Volume::EmptyDir {
        // An unknown medium has been refused already.
        medium: source.and_then(|it| medium(it.medium.as_deref()?)).unwrap_or(Medium::Disk),
        size_limit: size.and_then(|milli| u64::try_from(milli.div_ceil(1000)).ok()),
    }
}

/// Parses `emptyDir.medium` (R-VOL-4).
fn medium(name: &str) -> Option<Medium> {
    match name {
        "" => Some(Medium::Disk),
        "Memory" => Some(Medium::Memory),
        "HugePages" => Some(Medium::HugePages { page: None }),
        other => {
            let size = Quantity::parse(other.strip_prefix("HugePages-")?).ok()?.milli()? / 1000;
            Some(Medium::HugePages { page: Some(u64::try_from(size).ok()?) })
        }
    }
}

/// Returns the group that owns the files of volumes (R-SEC-11).
pub(super) fn fs_group(spec: &wire::PodSpec) -> Option<FsGroup> {
    let context = spec.security_context.as_ref()?;
    let id = u32::try_from(context.fs_group?).ok()?;
    Some(FsGroup { id, on_root_mismatch: context.fs_group_change_policy.as_deref() == Some("OnRootMismatch") })
}

/// Returns problems of volumes that this node cannot provide although it supports their fields.
pub(crate) fn objections(spec: &wire::PodSpec) -> Vec<Problem> {
    let volumes = spec.volumes.iter().flatten().enumerate();
    let said = volumes.flat_map(|(index, volume)| {
        unknown_medium(volume).into_iter().chain(sources(volume)).map(move |it| (index, it))
    });
    let problem = |(index, (field, message))| Problem {
        field: format!("spec.volumes[{index}].{field}"),
        message,
        ..Problem::default()
    };
    said.map(problem).collect()
}

/// Returns the problem of an unknown `emptyDir.medium`: an API server accepts it.
fn unknown_medium(volume: &wire::Volume) -> Option<(String, String)> {
    let name = volume.empty_dir.as_ref()?.medium.as_deref().filter(|name| medium(name).is_none())?;
    let name = quoted(name);
    let message = format!("unknown storage medium {name}; use Memory, HugePages or HugePages-<size>, or leave it out");
    Some(("emptyDir.medium".to_owned(), message))
}

/// Returns the problems of empty projected sources: an API server accepts them, a kubelet does not (R-REJ-4).
fn sources(volume: &wire::Volume) -> impl Iterator<Item = (String, String)> {
    let sources = volume.projected.iter().flat_map(|it| it.sources.iter().flatten()).enumerate();
    let empty = sources.filter(|(_, source)| **source == wire::VolumeProjection::default());
    empty.map(|(index, _)| {
        let message = format!(
            "unknown source for projected volume {}; give it a configMap, secret or downwardAPI",
            quoted(&volume.name)
        );
        (format!("projected.sources[{index}]"), message)
    })
}

fn host_path_kind(kind: Option<&str>) -> HostPathKind {
    match kind {
        Some("DirectoryOrCreate") => HostPathKind::DirectoryOrCreate,
        Some("Directory") => HostPathKind::Directory,
        Some("FileOrCreate") => HostPathKind::FileOrCreate,
        Some("File") => HostPathKind::File,
        Some("Socket") => HostPathKind::Socket,
        Some("CharDevice") => HostPathKind::CharDevice,
        Some("BlockDevice") => HostPathKind::BlockDevice,
        _ => HostPathKind::Unset,
    }
}

fn projected(kind: ProjectedKind, sources: Vec<Projection>, mode: Option<i32>) -> Volume {
    Volume::Projected(Projected { kind, sources, default_mode: self::mode(mode).unwrap_or(0o644) })
}

fn projection(source: &wire::VolumeProjection, pod: &wire::Pod) -> Option<Projection> {
    if let Some(it) = &source.config_map {
        return Some(object_source(ObjectKind::ConfigMap, &it.name, &it.items, it.optional, pod));
    }
    if let Some(it) = &source.secret {
        return Some(object_source(ObjectKind::Secret, &it.name, &it.items, it.optional, pod));
    }
    Some(downward(source.downward_api.as_ref()?.items.as_deref().unwrap_or_default(), pod))
}

fn object_source(
    kind: ObjectKind,
    name: &str,
    items: &Option<Vec<wire::KeyToPath>>,
    optional: Option<bool>,
    pod: &wire::Pod,
) -> Projection {
    let item = |it: &wire::KeyToPath| Item { key: it.key.clone(), path: it.path.clone(), mode: mode(it.mode) };
    let items = items.as_ref().filter(|items| !items.is_empty()).map(|items| items.iter().map(item).collect());
    Projection::Object { object: object(kind, name, pod), items, optional: optional.unwrap_or(false) }
}

fn downward(items: &[wire::DownwardAPIVolumeFile], pod: &wire::Pod) -> Projection {
    let file = |it: &wire::DownwardAPIVolumeFile| {
        let value = match (&it.field_ref, &it.resource_field_ref) {
            (Some(field_ref), _) => field(&field_ref.field_path, pod),
            (None, Some(resource_ref)) => resource(resource_ref, None, pod),
            (None, None) => Value::Literal(String::new()),
        };
        DownwardFile { path: it.path.clone(), mode: mode(it.mode), value }
    };
    Projection::Downward(items.iter().map(file).collect())
}

fn mode(mode: Option<i32>) -> Option<u32> {
    mode.and_then(|mode| u32::try_from(mode).ok())
}
