//! Images that a pod needs, and their uses.

use std::collections::BTreeSet;

use stanchion_pod::{Container, Pod, PullPolicy, Volume};

/// Use of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageFor {
    /// Root file system of the container with this name.
    Container(String),
    /// Files of the volume with this name (R-VOL-11).
    Volume(String),
}

/// An image that a pod needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need<'a> {
    /// Use of the image.
    pub of: ImageFor,
    /// Image reference as the user wrote it.
    pub image: &'a str,
    /// Pull policy of the container or volume.
    pub policy: PullPolicy,
}

/// Returns the images that a container needs: those that it mounts, each once, and then its own.
pub fn needs<'a>(pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = Need<'a>> {
    let mounted: BTreeSet<_> = container.mounts.iter().map(|mount| &mount.volume).collect();
    let own = Need {
        of: ImageFor::Container(container.name.clone()),
        image: &container.image,
        policy: container.pull_policy,
    };
    mounted.into_iter().filter_map(|name| of_volume(pod, name)).chain([own])
}

/// Returns the image that the pod needs for a use.
pub fn need<'a>(pod: &'a Pod, of: &ImageFor) -> Option<Need<'a>> {
    match of {
        ImageFor::Container(name) => needs(pod, pod.container(name)?).last(),
        ImageFor::Volume(name) => of_volume(pod, name),
    }
}

/// Returns every image that a pod names, as the user wrote it.
pub fn references(pod: &Pod) -> impl Iterator<Item = &str> {
    let of_volumes = pod.volumes.values().filter_map(|volume| match volume {
        Volume::Image { reference, .. } => Some(reference.as_str()),
        _ => None,
    });
    pod.all_containers().map(|container| container.image.as_str()).chain(of_volumes)
}

/// Returns the containers that need an image.
pub fn users<'a>(pod: &'a Pod, of: &ImageFor) -> impl Iterator<Item = &'a Container> {
    pod.all_containers().filter(move |container| match of {
        ImageFor::Container(name) => container.name == *name,
        ImageFor::Volume(name) => container.mounts.iter().any(|mount| mount.volume == *name),
    })
}

fn of_volume<'a>(pod: &'a Pod, name: &str) -> Option<Need<'a>> {
    match pod.volumes.get(name)? {
        Volume::Image { reference, pull_policy } => {
            Some(Need { of: ImageFor::Volume(name.to_owned()), image: reference, policy: *pull_policy })
        }
        _ => None,
    }
}
