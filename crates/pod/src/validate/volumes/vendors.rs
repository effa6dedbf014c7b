//! Validates volumes of vendors' own storage as the API server does.

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource, CSIVolumeSource,
    CinderVolumeSource, FlexVolumeSource, FlockerVolumeSource, GCEPersistentDiskVolumeSource, GitRepoVolumeSource,
    LocalObjectReference, PhotonPersistentDiskVolumeSource, PortworxVolumeSource, ScaleIOVolumeSource,
    StorageOSVolumeSource, VsphereVirtualDiskVolumeSource,
};

use crate::validate::{
    format::{descending_path, dns_label, dns_subdomain},
    path::Path,
    problems::Problems,
};

fn required(value: &str, path: &Path<'_>, problems: &mut Problems) {
    if value.is_empty() {
        problems.required(path, "");
    }
}

pub(super) fn git_repo(source: &GitRepoVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("gitRepo");
    required(&source.repository, &path.field("repository"), problems);
    let directory = source.directory.as_deref().unwrap_or_default();
    problems.format(&path.field("directory"), directory, descending_path(directory));
}

/// Checks the number of a partition; 0 is none.
fn partition(partition: Option<i32>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(partition) = partition.filter(|partition| !(0..=255).contains(partition)) {
        problems.invalid(&path.field("partition"), partition, "must be between 1 and 255, inclusive");
    }
}

pub(super) fn gce_disk(source: &GCEPersistentDiskVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    // The server has this name for the field.
    let path = path.field("persistentDisk");
    required(&source.pd_name, &path.field("pdName"), problems);
    partition(source.partition, &path, problems);
}

pub(super) fn aws_disk(source: &AWSElasticBlockStoreVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("awsElasticBlockStore");
    required(&source.volume_id, &path.field("volumeID"), problems);
    partition(source.partition, &path, problems);
}

pub(super) fn flocker(source: &FlockerVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("flocker");
    match (&source.dataset_name, &source.dataset_uuid) {
        (None, None) => problems.required(&path, "one of datasetName and datasetUUID is required"),
        (Some(_), Some(_)) => {
            problems.invalid(&path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if let Some(name) = source.dataset_name.as_deref().filter(|name| name.contains('/')) {
        problems.invalid(&path.field("datasetName"), name, "must not contain '/'");
    }
}

fn secret(secret: Option<&LocalObjectReference>, path: &Path<'_>, problems: &mut Problems) {
    if let Some(secret) = secret {
        required(&secret.name, &path.field("secretRef").field("name"), problems);
    }
}

pub(super) fn cinder(source: &CinderVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("cinder");
    required(&source.volume_id, &path.field("volumeID"), problems);
    secret(source.secret_ref.as_ref(), &path, problems);
}

pub(super) fn flex(source: &FlexVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("flexVolume");
    required(&source.driver, &path.field("driver"), problems);
    let options = path.field("options");
    for (key, _) in source.options.iter().flatten() {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace).to_lowercase();
        let is_below = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
        if is_below("kubernetes.io") || is_below("k8s.io") {
            problems.invalid(&options.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

pub(super) fn azure_file(source: &AzureFileVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("azureFile");
    required(&source.secret_name, &path.field("secretName"), problems);
    required(&source.share_name, &path.field("shareName"), problems);
}

pub(super) fn vsphere(source: &VsphereVirtualDiskVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    required(&source.volume_path, &path.field("vsphereVolume").field("volumePath"), problems);
}

pub(super) fn photon(source: &PhotonPersistentDiskVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    required(&source.pd_id, &path.field("photonPersistentDisk").field("pdID"), problems);
}

pub(super) fn portworx(source: &PortworxVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    required(&source.volume_id, &path.field("portworxVolume").field("volumeID"), problems);
}

pub(super) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("azureDisk");
    required(&source.disk_name, &path.field("diskName"), problems);
    required(&source.disk_uri, &path.field("diskURI"), problems);
    let modes = ["None", "ReadOnly", "ReadWrite"];
    problems.one_of_if_set(&path.field("cachingMode"), source.caching_mode.as_deref(), &modes);
    let kinds = ["Dedicated", "Managed", "Shared"];
    problems.one_of_if_set(&path.field("kind"), source.kind.as_deref(), &kinds);
    let (begin, form) = match source.kind.as_deref() {
        None => return,
        Some("Managed") => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        Some(_) => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !source.disk_uri.starts_with(begin) {
        problems.not_among(&path.field("diskURI"), &source.disk_uri, &[form]);
    }
}

pub(super) fn storageos(source: &StorageOSVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("storageos");
    match source.volume_name.as_deref() {
        None => problems.required(&path.field("volumeName"), ""),
        Some(name) => problems.format(&path.field("volumeName"), name, dns_label(name)),
    }
    if let Some(namespace) = &source.volume_namespace {
        problems.format(&path.field("volumeNamespace"), namespace, dns_label(namespace));
    }
    secret(source.secret_ref.as_ref(), &path, problems);
}

pub(super) fn scale_io(source: &ScaleIOVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("scaleIO");
    required(&source.gateway, &path.field("gateway"), problems);
    required(&source.system, &path.field("system"), problems);
    required(source.volume_name.as_deref().unwrap_or_default(), &path.field("volumeName"), problems);
}

pub(super) fn csi(source: &CSIVolumeSource, path: &Path<'_>, problems: &mut Problems) {
    let path = path.field("csi");
    let driver = path.field("driver");
    required(&source.driver, &driver, problems);
    if source.driver.len() > 63 {
        problems.too_long(&driver, 63);
    }
    if !source.driver.is_empty() {
        problems.format(&driver, &source.driver, dns_subdomain(&source.driver.to_lowercase()));
    }
    match source.node_publish_secret_ref.as_ref().map(|secret| secret.name.as_str()) {
        None => {}
        Some("") => problems.required(&path.field("nodePublishSecretRef").field("name"), ""),
        // The server gives the volume's path here, not the secret's.
        Some(name) => problems.format(&path.field("name"), name, dns_subdomain(name)),
    }
}
