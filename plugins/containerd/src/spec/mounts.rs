//! Mounts of a container.

use oci_spec::{
    OciSpecError,
    runtime::{Mount, MountBuilder},
};
use stanchion_network::namespaces::SHARED_MEMORY;
use stanchion_sdk::{
    proc,
    runtime::{MountPropagation, RecursiveReadOnly},
};

use super::Parts;

pub(super) fn mounts(parts: &Parts<'_>) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        MountBuilder::default().destination(destination).typ(kind).source(source).options(options).build()
    };
    let quiet = ["nosuid", "noexec", "nodev"];
    // Shared memory goes with the IPC namespace: what one container of the pod names, another finds.
    let shared_memory = match parts.own.ipc {
        true => parts.namespaces.path(SHARED_MEMORY).to_string_lossy().into_owned(),
        false => "/dev/shm".to_owned(),
    };
    // Privileged containers may change the node (R-SEC-5).
    let access = if parts.config.security.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &quiet)?,
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        // The node's own keeps the node's options, and the pod's is `nosuid`, `noexec`, `nodev` already.
        mount("/dev/shm", "bind", &shared_memory, &["rbind", "rprivate", "rw"])?,
        mount("/dev/mqueue", "mqueue", "mqueue", &quiet)?,
        match parts.own.network {
            true => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access])?,
            // A sysfs shows the network of whoever mounts it, which only that network's owner may do. Not `rbind`: the
            // mounts below it (debugfs, tracefs, bpf) would come along, and writable.
            false => mount("/sys", "bind", "/sys", &["nosuid", "noexec", "nodev", access, "bind"])?,
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access])?,
    ];
    for wanted in &parts.config.mounts {
        let propagation = match wanted.propagation {
            MountPropagation::Private => "rprivate",
            MountPropagation::HostToContainer => "rslave",
            MountPropagation::Bidirectional => "rshared",
        };
        let access = match (wanted.read_only, wanted.recursive_read_only) {
            (false, _) => "rw",
            (true, RecursiveReadOnly::Disabled) => "ro",
            (true, RecursiveReadOnly::IfPossible) if !can_be_recursive() => "ro",
            (true, RecursiveReadOnly::IfPossible | RecursiveReadOnly::Enabled) => "rro",
        };
        let quiet = ["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"];
        let plain = ["rbind", propagation, access];
        let options = if wanted.image.is_some() { &quiet[..] } else { &plain[..] };
        let (destination, source) = (wanted.destination.to_string_lossy(), wanted.source.to_string_lossy());
        mounts.push(mount(&destination, "bind", &source, options)?);
    }
    Ok(mounts)
}

/// Returns whether the kernel can make a mount read-only with the mounts below it: since 5.12 (mount_setattr(2)).
pub(crate) fn can_be_recursive() -> bool {
    proc::kernel() >= (5, 12)
}

/// Returns the propagation of the container's whole tree: it must not cut off a mount that is to be shared (R-MNT-1).
pub(super) fn propagation(parts: &Parts<'_>) -> Option<&'static str> {
    let has = |propagation| parts.config.mounts.iter().any(|mount| mount.propagation == propagation);
    match () {
        () if has(MountPropagation::Bidirectional) => Some("rshared"),
        () if has(MountPropagation::HostToContainer) => Some("rslave"),
        () => None,
    }
}
