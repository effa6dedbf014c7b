//! Mounts of a container: their sources on the node, and their options.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use stanchion_plan::reason::Reason;
use stanchion_pod::{Container, Propagation, RecursiveReadOnly, SubPath, Volume, VolumeMount, expand::expand_within};
use stanchion_runtime::{Error, ErrorKind, ImageMount, Mount, MountPropagation, RecursiveReadOnly as Recursive};

use super::{failed::Failed, pod_inputs::PodInputs};
use crate::{
    env::Environment,
    files::{self, clean, enclosing, make_point, share, sharing},
    limits::PATH,
    reference,
};

/// Returns a container's mounts, parents before children (R-MNT-2): the volumes, and `managed` files at paths where the
/// manifest mounts nothing.
pub(super) fn mounts(
    pod_inputs: &PodInputs,
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
    managed: Vec<(PathBuf, String)>,
    environment: &Environment,
) -> Result<Vec<Mount>, Failed> {
    let is_free = |path: &str| !container.mounts.iter().any(|mount| mount.path == path);
    let managed = managed.into_iter().filter(|(_, path)| is_free(path));
    let mut mounts: Vec<_> = managed.map(|(source, path)| Mount::new(source, path)).collect();
    for (index, wanted) in container.mounts.iter().enumerate() {
        if let Some(Volume::Image { reference, .. }) = pod_inputs.pod.volumes.get(&wanted.volume) {
            // The runtime resolves `subPath` in an image. An image has no mount propagation and is always read-only.
            let sub_path = sub_path(wanted, environment)?.unwrap_or_default();
            let image = ImageMount { reference: reference::full(reference), sub_path };
            mounts.push(Mount::of_image(image, &wanted.path));
            continue;
        }
        let root = volumes.get(&wanted.volume).expect("validation: every mount names a volume of the pod");
        let source = match sub_path(wanted, environment)? {
            None => root.clone(),
            Some(path) => {
                let volume = (wanted.volume.as_str(), root.as_path());
                let found = files::prepare_sub_path(&pod_inputs.files, volume, &container.name, index, &path);
                found.map_err(|error| {
                    let message = format!(
                        "failed to prepare subPath for volumeMount {:?} of container {:?}",
                        wanted.volume, container.name
                    );
                    Failed::new(
                        Reason::CreateContainerConfigError,
                        Error::new(ErrorKind::Other, message).caused_by(&error),
                    )
                })?
            }
        };
        mounts.push(mount(pod_inputs, wanted, source)?);
    }
    mounts.sort_by_key(|mount| mount.destination.components().count());
    make_points(pod_inputs, container, &mounts)?;
    Ok(mounts)
}

/// Makes the mount points inside volumes that no container can write.
fn make_points(pod_inputs: &PodInputs, container: &Container, mounts: &[Mount]) -> Result<(), Failed> {
    let is_projected = |path: &Path| {
        let mut all = container.mounts.iter().filter(|mount| clean(&mount.path) == path);
        all.any(|mount| matches!(pod_inputs.pod.volumes.get(&mount.volume), Some(Volume::Projected(_))))
    };
    let paths: Vec<_> = mounts.iter().map(|mount| clean(&mount.destination)).collect();
    for (mount, path) in mounts.iter().zip(&paths) {
        let Some(above) = enclosing(path, paths.iter().map(PathBuf::as_path)).filter(|above| is_projected(above))
        else {
            continue;
        };
        let index = paths.iter().position(|path| path == above).expect("it is one of them");
        let below = path.strip_prefix(above).expect("it encloses it");
        // Only the runtime knows whether the path is a file or a directory in the image; mostly it is a directory.
        let is_directory = mount.image.is_some() || mount.source.is_dir();
        make_point(&mounts[index].source, below, is_directory).map_err(|error| {
            let message =
                format!("cannot make the mount point {:?} in the volume that is mounted above it", mount.destination);
            Failed::new(Reason::CreateContainerError, Error::new(ErrorKind::Other, message).caused_by(&error))
        })?;
    }
    Ok(())
}

fn mount(pod_inputs: &PodInputs, wanted: &VolumeMount, source: PathBuf) -> Result<Mount, Failed> {
    let is_fixed = match pod_inputs.pod.volumes.get(&wanted.volume) {
        // A container must not write to files that the agent writes (R-VOL-8).
        Some(Volume::Projected(_)) => true,
        Some(Volume::Claim { read_only, .. }) => *read_only,
        _ => false,
    };
    let propagation = match wanted.propagation {
        Propagation::None => MountPropagation::Private,
        Propagation::HostToContainer => MountPropagation::HostToContainer,
        Propagation::Bidirectional => MountPropagation::Bidirectional,
    };
    let is_scratch = matches!(pod_inputs.pod.volumes.get(&wanted.volume), Some(Volume::EmptyDir { .. }));
    if is_scratch && propagation != MountPropagation::Private {
        share(&source).map_err(|error| {
            let message = format!("cannot share the mounts below {source:?}");
            Failed::new(Reason::CreateContainerError, Error::new(ErrorKind::Other, message).caused_by(&error))
        })?;
    }
    check_sharing(&source, propagation)?;
    Ok(Mount {
        read_only: wanted.read_only || is_fixed,
        propagation,
        recursive_read_only: match wanted.recursive_read_only {
            RecursiveReadOnly::Disabled => Recursive::Disabled,
            RecursiveReadOnly::IfPossible => Recursive::IfPossible,
            RecursiveReadOnly::Enabled => Recursive::Enabled,
        },
        ..Mount::new(source, &wanted.path)
    })
}

/// Refuses mount propagation from a mount that is not shared on the node (R-MNT-1). Each runtime would refuse it in
/// other words.
fn check_sharing(source: &Path, propagation: MountPropagation) -> Result<(), Failed> {
    if propagation == MountPropagation::Private {
        return Ok(());
    }
    let failed = |error| Failed::new(Reason::CreateContainerError, error);
    let found = sharing(source).map_err(|error| {
        failed(Error::new(ErrorKind::Other, format!("cannot look at the mount of {source:?}")).caused_by(&error))
    })?;
    let expected = match propagation {
        MountPropagation::HostToContainer if !found.is_shared && !found.is_slave => "a shared or slave",
        MountPropagation::Bidirectional if !found.is_shared => "a shared",
        _ => return Ok(()),
    };
    let message = format!("path {source:?} is mounted on {:?} but it is not {expected} mount", found.mount);
    Err(failed(Error::new(ErrorKind::Other, message)))
}

/// Returns the `subPath` of a mount, with its `subPathExpr` expanded (R-MNT-5).
fn sub_path(wanted: &VolumeMount, environment: &Environment) -> Result<Option<PathBuf>, Failed> {
    let failed =
        |message: String| Failed::new(Reason::CreateContainerConfigError, Error::new(ErrorKind::Other, message));
    let path = match &wanted.sub_path {
        None => return Ok(None),
        Some(SubPath::Path(path)) => path.clone(),
        Some(SubPath::Expression(expression)) => {
            let mut missing = None;
            let path = expand_within(expression, PATH.size(), |name| {
                let value = environment.get(name).filter(|value| !value.is_empty());
                if value.is_none() {
                    missing.get_or_insert_with(|| name.to_owned());
                }
                value
            });
            match (missing, path) {
                (Some(name), _) => return Err(failed(format!("missing value for {name:?}"))),
                (None, None) => return Err(failed(format!("subPathExpr stands for more than {} bytes", PATH.most))),
                (None, Some(path)) => path,
            }
        }
    };
    let path = PathBuf::from(path);
    match path.components().all(|it| matches!(it, Component::Normal(_) | Component::CurDir)) {
        true => Ok(Some(path.components().filter(|it| matches!(it, Component::Normal(_))).collect())),
        false => Err(failed(format!("subPath {path:?} must be a relative path and must not contain '..'"))),
    }
}
