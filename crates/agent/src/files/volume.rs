//! Prepares volumes for mounting.

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::{self, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};
use stanchion_pod::{
    Capacity, FsGroup, HostPathKind, Medium, ObjectKey, Objects, Pod, Projected, ProjectedKind, Volume,
};
use stanchion_untrusted::TooLarge;

use super::{PodFiles, mounts, owner, points::Points, projected, publish};

/// Reason why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("hostPath type check failed: {} is not {expected}: {found}", path.display())]
    WrongType { path: PathBuf, expected: &'static str, found: &'static str },
    #[error("{tried} {}", path.display())]
    Io { tried: &'static str, path: PathBuf, source: io::Error },
    #[error("{0} not found")]
    Missing(ObjectKey),
    #[error("references non-existent {object} key: {key}")]
    MissingKey { object: &'static str, key: String },
    #[error("the files of the pod's volumes are too many or too large together: {0}")]
    TooLarge(TooLarge),
    #[error("{} would be a file and a directory", .0.display())]
    Conflict(PathBuf),
    #[error("hugePages storage requested, but there is no resource request for huge pages{}", of_size(*.0))]
    NoHugePages(Option<u64>),
    #[error(
        "medium HugePages can't be used if container requests multiple huge page sizes; name one: HugePages-<size>"
    )]
    ManyHugePages,
}

/// Inputs of a pod's volumes.
pub(crate) struct VolumeInputs<'a> {
    pub pod: &'a Pod,
    pub files: &'a PodFiles,
    pub objects: &'a Objects,
    pub capacity: &'a Capacity,
    /// `true` while no container of the pod runs: only then are emptyDirs and claims, whose files may be many, given to
    /// the pod's group.
    pub is_new: bool,
    /// Size of the files that the agent writes for the volumes, bytes.
    pub written: Cell<u64>,
}

/// Prepares a volume, and returns the path on the node to mount, if it has one. It may be called again for the same
/// volume.
pub(crate) fn prepare(name: &str, volume: &Volume, inputs: &VolumeInputs<'_>) -> Result<Option<PathBuf>, VolumeError> {
    let path = match volume {
        // Runtimes mount these themselves.
        Volume::Image { .. } => return Ok(None),
        Volume::HostPath { path, kind } => host_path(path, *kind).map(|()| path.clone())?,
        Volume::EmptyDir { medium, size_limit } => empty_dir(name, *medium, *size_limit, inputs)?,
        Volume::Projected(projected) => write_projected(name, projected, inputs)?,
        Volume::Claim { claim, .. } => claimed(claim, inputs)?,
    };
    Ok(Some(path))
}

/// Makes an emptyDir.
fn empty_dir(
    name: &str,
    medium: Medium,
    size_limit: Option<u64>,
    inputs: &VolumeInputs<'_>,
) -> Result<PathBuf, VolumeError> {
    let path = inputs.files.empty_dir(name);
    let failed = |tried| failed(tried, &path);
    fs::create_dir_all(&path).map_err(failed("cannot make the directory"))?;
    match medium {
        Medium::Memory => {
            let size = [Some(inputs.capacity.memory), memory_limit(inputs.pod), size_limit];
            // Without a size the kernel allows half of its memory.
            let size = size.into_iter().flatten().filter(|size| *size > 0).min();
            memory(&path, size, MountFlags::empty()).map_err(failed("cannot mount a tmpfs at"))?;
        }
        Medium::HugePages { page } => {
            let page = huge_page(inputs.pod, page)?;
            huge_pages(&path, page, size_limit).map_err(failed("cannot mount a hugetlbfs at"))?;
        }
        Medium::Disk => {
            let mode = fs::metadata(&path).map_err(failed("cannot look at"))?.permissions().mode();
            // Any user may write, as in every kubelet's emptyDir; `create_dir_all` would apply the umask.
            let open = Permissions::from_mode(mode & 0o7000 | 0o777);
            fs::set_permissions(&path, open).map_err(failed("cannot set the mode of"))?;
        }
    }
    if let Some(group) = inputs.pod.fs_group.as_ref().filter(|_| inputs.is_new) {
        // `fsGroupChangePolicy` is only for volumes that outlive a pod.
        let group = FsGroup { on_root_mismatch: false, ..*group };
        owner::change_group(&path, &group).map_err(failed("cannot give to the pod's fsGroup"))?;
    }
    Ok(path)
}

/// Writes the files of a volume that are made of objects and of the pod itself.
fn write_projected(name: &str, projected: &Projected, inputs: &VolumeInputs<'_>) -> Result<PathBuf, VolumeError> {
    let group = inputs.pod.fs_group.as_ref();
    let path = inputs.files.projected(projected.kind, name);
    let failed = |tried| failed(tried, &path);
    let payload = projected::payload(projected, inputs.objects, inputs.capacity, &inputs.written)?;
    fs::create_dir_all(&path).map_err(failed("cannot make the directory"))?;
    match projected.kind {
        ProjectedKind::ConfigMap => {
            fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(failed("cannot set the mode of"))?;
        }
        // Files that may be secret are never on a disk.
        ProjectedKind::Secret | ProjectedKind::DownwardApi | ProjectedKind::Projected => {
            memory(&path, memory_limit(inputs.pod), MountFlags::NOSUID | MountFlags::NODEV)
                .map_err(failed("cannot mount a tmpfs at"))?;
        }
    }
    if let Some(group) = group {
        let give = chown(&path, None, Some(group.id)).and_then(|()| {
            let mode = fs::metadata(&path)?.permissions().mode();
            fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777 | 0o2770))
        });
        give.map_err(failed("cannot give to the pod's fsGroup"))?;
    }
    publish::publish(&path, &payload, group.map(|group| group.id), &Points::of(inputs.pod, name))
        .map_err(failed("cannot write the files of"))?;
    Ok(path)
}

/// Makes the directory of a PersistentVolumeClaim.
fn claimed(claim: &ObjectKey, inputs: &VolumeInputs<'_>) -> Result<PathBuf, VolumeError> {
    if !inputs.objects.contains_key(claim) {
        return Err(VolumeError::Missing(claim.clone()));
    }
    let path = inputs.files.claim(claim);
    let failed = |tried| failed(tried, &path);
    if !path.exists() {
        // Any user in the pod may write it; the directory above keeps everybody else out.
        let above = path.parent().unwrap_or(&path);
        super::directory(0o700, above).map_err(failed("cannot make the directory"))?;
        fs::create_dir_all(&path).map_err(failed("cannot make the directory"))?;
        fs::set_permissions(&path, Permissions::from_mode(0o777)).map_err(failed("cannot set the mode of"))?;
    }
    if let Some(group) = inputs.pod.fs_group.as_ref().filter(|_| inputs.is_new) {
        owner::change_group(&path, group).map_err(failed("cannot give to the pod's fsGroup"))?;
    }
    Ok(path)
}

/// Updates the files of a volume whose objects have changed (R-VOL-8). It does not touch a volume that was never
/// prepared.
pub(crate) fn refresh(name: &str, volume: &Volume, inputs: &VolumeInputs<'_>) -> Result<(), VolumeError> {
    match volume {
        Volume::Projected(projected) if inputs.files.projected(projected.kind, name).exists() => {
            prepare(name, volume, inputs).map(drop)
        }
        _ => Ok(()),
    }
}

fn failed(tried: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Io { tried, path: path.to_owned(), source }
}

/// Returns the sum of the memory limits of a pod's containers; `None` if one has no limit (R-VOL-3).
fn memory_limit(pod: &Pod) -> Option<u64> {
    pod.containers.iter().map(|container| container.resources.memory_limit).sum()
}

/// Mounts a tmpfs at a directory, unless something is mounted there.
fn memory(path: &Path, size: Option<u64>, flags: MountFlags) -> io::Result<()> {
    if mounts::is_own(path)? {
        return Ok(());
    }
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let mount = |more: &str| mount_with("tmpfs", path, flags, &format!("mode=1777{size}{more}"));
    // Kernels before 6.4 do not know the option.
    match mount(",noswap") {
        Err(rustix::io::Errno::INVAL) => Ok(mount("")?),
        mounted => Ok(mounted?),
    }
}

/// Mounts a hugetlbfs at a directory, unless something is mounted there.
fn huge_pages(path: &Path, page: u64, size: Option<u64>) -> io::Result<()> {
    if mounts::is_own(path)? {
        return Ok(());
    }
    let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = format!("mode=777,pagesize={}K{size}", page >> 10);
    Ok(mount_with("hugetlbfs", path, MountFlags::empty(), &options)?)
}

fn mount_with(kind: &str, path: &Path, flags: MountFlags, options: &str) -> rustix::io::Result<()> {
    let options = std::ffi::CString::new(options).expect("digits and letters only");
    mount(kind, path, kind, flags, Some(options.as_c_str()))
}

/// Returns the page size of a volume of huge pages, for which the pod must have a request (R-VOL-4).
fn huge_page(pod: &Pod, wanted: Option<u64>) -> Result<u64, VolumeError> {
    let sizes: BTreeSet<u64> = pod.all_containers().flat_map(|it| it.resources.hugepages.keys().copied()).collect();
    let mut fitting = sizes.into_iter().filter(|size| wanted.is_none_or(|wanted| wanted == *size));
    match (fitting.next(), fitting.next()) {
        (Some(size), None) => Ok(size),
        (None, _) => Err(VolumeError::NoHugePages(wanted)),
        (Some(_), Some(_)) => Err(VolumeError::ManyHugePages),
    }
}

fn of_size(page: Option<u64>) -> String {
    page.map(|page| format!(" of {} KiB", page >> 10)).unwrap_or_default()
}

/// Checks or creates a path of the node (R-VOL, `hostPath.type`).
fn host_path(path: &Path, kind: HostPathKind) -> Result<(), VolumeError> {
    let failed = |tried| move |source| VolumeError::Io { tried, path: path.to_owned(), source };
    let found = match fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(failed("cannot look at")(error)),
    };
    let expect = |expected, is: fn(&Metadata) -> bool| match &found {
        Some(found) if is(found) => Ok(()),
        found => Err(VolumeError::WrongType {
            path: path.to_owned(),
            expected,
            found: found.as_ref().map_or("it does not exist", type_name),
        }),
    };
    match kind {
        HostPathKind::Unset if found.is_some() => Ok(()),
        // A mount needs an existing path, so a directory is made, as the runtimes below a kubelet do.
        HostPathKind::Unset => fs::create_dir_all(path).map_err(failed("cannot make the directory")),
        HostPathKind::DirectoryOrCreate if found.is_none() => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(failed("cannot make the directory"))
        }
        HostPathKind::FileOrCreate if found.is_none() => {
            let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
            made.map(drop).map_err(failed("cannot make the file"))
        }
        HostPathKind::DirectoryOrCreate | HostPathKind::Directory => expect("a directory", Metadata::is_dir),
        HostPathKind::FileOrCreate | HostPathKind::File => expect("a file", Metadata::is_file),
        HostPathKind::Socket => expect("a socket file", |found| found.file_type().is_socket()),
        HostPathKind::CharDevice => expect("a character device", |found| found.file_type().is_char_device()),
        HostPathKind::BlockDevice => expect("a block device", |found| found.file_type().is_block_device()),
    }
}

fn type_name(found: &Metadata) -> &'static str {
    let kind = found.file_type();
    match () {
        () if kind.is_dir() => "it is a directory",
        () if kind.is_file() => "it is a file",
        () if kind.is_socket() => "it is a socket",
        () if kind.is_char_device() => "it is a character device",
        () if kind.is_block_device() => "it is a block device",
        () => "it is something else",
    }
}
