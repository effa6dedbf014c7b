//! Defaults of volumes.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume, VolumeProjection};

use super::{fill_resource_ref, pull_policy, resources, text};

/// Default mode: files are readable by everybody and writable by their owner.
const MODE: i32 = 0o644;

pub(super) fn fill(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(image) = &mut volume.image {
        text(&mut image.pull_policy, pull_policy(image.reference.as_deref()));
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(MODE);
        source.items.iter_mut().flatten().for_each(fill_file);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(MODE);
        source.sources.iter_mut().flatten().for_each(fill_projection);
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        template.metadata.get_or_insert_default();
        text(&mut template.spec.volume_mode, "Filesystem");
        let claimed = template.spec.resources.get_or_insert_default();
        [&mut claimed.limits, &mut claimed.requests].into_iter().flatten().for_each(resources::round);
    }
    fill_vendor(volume);
}

fn fill_vendor(volume: &mut Volume) {
    if let Some(source) = &mut volume.iscsi {
        text(&mut source.iscsi_interface, "default");
    }
    if let Some(source) = &mut volume.rbd {
        text(&mut source.pool, "rbd");
        text(&mut source.user, "admin");
        text(&mut source.keyring, "/etc/ceph/keyring");
    }
    if let Some(source) = &mut volume.azure_disk {
        text(&mut source.caching_mode, "ReadWrite");
        text(&mut source.kind, "Shared");
        text(&mut source.fs_type, "ext4");
        source.read_only.get_or_insert(false);
    }
    if let Some(source) = &mut volume.scale_io {
        text(&mut source.storage_mode, "ThinProvisioned");
        text(&mut source.fs_type, "xfs");
    }
}

fn fill_projection(source: &mut VolumeProjection) {
    if let Some(downward) = &mut source.downward_api {
        downward.items.iter_mut().flatten().for_each(fill_file);
    }
    if let Some(token) = &mut source.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
}

fn fill_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        fill_resource_ref(resource);
    }
}
