//! Validates volumes as the API server does.

mod claim;
mod downward;
mod network;
mod projected;
mod vendors;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{HostPathVolumeSource, ImageVolumeSource, KeyToPath, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    format::{dns_label, dns_subdomain, no_backsteps, unreserved_path},
    path::Path,
    problems::Problems,
    quoted,
};
use crate::{kubernetes::Gates, quantity::Quantity};

/// Checks the volumes; returns the valid ones, by name.
pub(super) fn volumes<'a>(
    volumes: Option<&'a [Volume]>,
    meta: &ObjectMeta,
    gates: &Gates,
    path: &Path<'_>,
    problems: &mut Problems,
) -> BTreeMap<&'a str, &'a Volume> {
    let volumes = volumes.unwrap_or_default();
    let claim = |volume: &Volume| Some(format!("{}-{}", meta.name.as_deref()?, volume.name));
    let created: BTreeSet<_> = volumes.iter().filter(|volume| volume.ephemeral.is_some()).filter_map(claim).collect();
    let mut good = BTreeMap::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = problems.count();
        source(volume, meta, gates, &path, problems);
        let field = path.field("name");
        match volume.name.as_str() {
            "" => problems.required(&field, ""),
            name => problems.format(&field, name, dns_label(name)),
        }
        if good.contains_key(volume.name.as_str()) {
            problems.duplicate(&field, &volume.name);
        }
        if problems.count() == before {
            good.insert(volume.name.as_str(), volume);
        }
        let claimed = volume.persistent_volume_claim.as_ref().map(|claim| &claim.claim_name);
        if let Some(claimed) = claimed.filter(|claimed| created.contains(*claimed)) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            problems.invalid(&path.field("persistentVolumeClaim").field("claimName"), claimed, detail);
        }
    }
    good
}

/// Checks that there is exactly one source: validates the first, and refuses further ones.
fn source(volume: &Volume, meta: &ObjectMeta, gates: &Gates, path: &Path<'_>, problems: &mut Problems) {
    let mut first = true;
    let mut take = |field: &str, is_set: bool, problems: &mut Problems| {
        let taken = is_set && first;
        if is_set && !first {
            problems.forbidden(&path.field(field), "may not specify more than 1 volume type");
        }
        first &= !is_set;
        taken
    };
    if let Some(source) = &volume.empty_dir {
        take("emptyDir", true, problems);
        let size = source.size_limit.as_ref().and_then(|size| Quantity::parse(&size.0).ok());
        if size.is_some_and(|size| size.is_negative()) {
            let detail = "SizeLimit field must be a valid resource quantity";
            problems.forbidden(&path.field("emptyDir").field("sizeLimit"), detail);
        }
    }
    macro_rules! sources {
        ($($field:literal, $source:expr => $check:expr;)*) => {
            $(if take($field, $source.is_some(), problems) {
                if let Some(source) = &$source {
                    $check(source, path, problems);
                }
            })*
        };
    }
    sources! {
        "hostPath", volume.host_path => host_path;
        "gitRepo", volume.git_repo => vendors::git_repo;
        "gcePersistentDisk", volume.gce_persistent_disk => vendors::gce_disk;
        "awsElasticBlockStore", volume.aws_elastic_block_store => vendors::aws_disk;
        "secret", volume.secret => downward::secret;
        "nfs", volume.nfs => network::nfs;
    }
    if take("iscsi", volume.iscsi.is_some(), problems)
        && let Some(source) = &volume.iscsi
    {
        network::iscsi(source, path, problems);
    }
    if let Some(source) = &volume.iscsi
        && source.initiator_name.is_some()
        && volume.name.len() + 1 + source.target_portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                      iscsi.initiatorName is specified.";
        problems.invalid(&path.field("name"), &volume.name, detail);
    }
    sources! {
        "glusterfs", volume.glusterfs => network::glusterfs;
        "flocker", volume.flocker => vendors::flocker;
        "persistentVolumeClaim", volume.persistent_volume_claim => claim::claim;
        "rbd", volume.rbd => network::rbd;
        "cinder", volume.cinder => vendors::cinder;
        // The server spells two of the fields this way when they are one too many.
        "cephFS", volume.cephfs => network::cephfs;
        "quobyte", volume.quobyte => network::quobyte;
        "downwarAPI", volume.downward_api => downward::downward;
        "fc", volume.fc => network::fc;
        "flexVolume", volume.flex_volume => vendors::flex;
        "configMap", volume.config_map => downward::config_map;
        "azureFile", volume.azure_file => vendors::azure_file;
        "vsphereVolume", volume.vsphere_volume => vendors::vsphere;
        "photonPersistentDisk", volume.photon_persistent_disk => vendors::photon;
        "portworxVolume", volume.portworx_volume => vendors::portworx;
        "azureDisk", volume.azure_disk => vendors::azure_disk;
        "storageos", volume.storageos => vendors::storageos;
    }
    if take("projected", volume.projected.is_some(), problems)
        && let Some(source) = &volume.projected
    {
        projected::projected(source, gates, path, problems);
    }
    sources! {
        "scaleIO", volume.scale_io => vendors::scale_io;
        "csi", volume.csi => vendors::csi;
    }
    if take("ephemeral", volume.ephemeral.is_some(), problems)
        && let Some(source) = &volume.ephemeral
    {
        claim::ephemeral(source, path, problems);
        if let Some(pod) = meta.name.as_deref().filter(|_| !volume.name.is_empty()) {
            let claim = format!("{pod}-{}", volume.name);
            for objection in dns_subdomain(&claim) {
                problems.invalid(
                    &path.field("name"),
                    &volume.name,
                    format_args!("PVC name {}: {objection}", quoted(&claim)),
                );
            }
        }
    }
    sources! {
        "image", volume.image => image;
    }
    if first {
        problems.required(path, "must specify a volume type");
    }
}

fn host_path(source: &HostPathVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("hostPath");
    if source.path.is_empty() {
        return problems.required(&path.field("path"), "");
    }
    problems.format(&path.field("path"), &source.path, no_backsteps(&source.path));
    let kinds = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    problems.one_of_if_set(&path.field("type"), source.type_.as_deref(), &kinds);
}

fn image(source: &ImageVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("image");
    if source.reference.as_deref().unwrap_or_default().is_empty() {
        problems.required(&path.field("reference"), "");
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    problems.one_of(&path.field("pullPolicy"), source.pull_policy.as_deref(), &policies);
}

/// Checks the mode of files.
fn mode(mode: Option<i32>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        problems.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// Checks keys that become files.
fn items(items: Option<&[KeyToPath]>, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("items");
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        self::item(item, &path.index(index), problems);
    }
}

fn item(item: &KeyToPath, path: &Path<'_>, problems: &mut Problems) {
    if item.key.is_empty() {
        problems.required(&path.field("key"), "");
    }
    file(&item.path, &path.field("path"), problems);
    mode(item.mode, &path.field("mode"), problems);
}

/// Checks the path of a file in a volume.
fn file(file: &str, path: &Path<'_>, problems: &mut Problems) {
    if file.is_empty() {
        problems.required(path, "");
    }
    problems.format(path, file, unreserved_path(file));
}

/// Refuses service account tokens without `serviceAccountName`.
pub(super) fn tokens_without_account(volume: &Volume, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("projected");
    let path = path.field("sources");
    let sources = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    for (index, _) in sources.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
        let detail = "must not be specified when serviceAccountName is not set";
        problems.forbidden(&path.index(index).field("serviceAccountToken"), detail);
    }
}
