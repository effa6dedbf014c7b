//! The OCI runtime configuration of a container. Every field is ours: the libraries' defaults are other programs' choices.

mod mounts;
mod process;
mod user;

use std::{collections::HashMap, path::Path};

use oci_spec::{
    OciSpecError,
    runtime::{
        Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
        LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
        LinuxResourcesBuilder, RootBuilder, Spec, SpecBuilder,
    },
};
use stanchion_sdk::runtime::ContainerConfig;

use crate::{image::Resolved, namespaces::Namespaces, seccomp};

pub(crate) use process::exec;
pub(crate) use user::{UserError, has_names};

/// What a container's configuration is made from.
pub(crate) struct Parts<'a> {
    pub config: &'a ContainerConfig,
    pub image: &'a Resolved,
    /// Where the container's files will be seen while they are prepared: for names of users.
    pub rootfs: Option<&'a Path>,
    pub namespaces: &'a Namespaces,
    pub own_network: bool,
    pub hostname: &'a str,
    pub cgroup: String,
    /// Groups the containers of a pod under one shim.
    pub group: &'a str,
}

/// Files of the kernel that tell of, or act on, the whole node.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec, SpecError> {
    let process = process::process(parts)?;
    let annotations = HashMap::from([("io.containerd.runc.v2.group".to_owned(), parts.group.to_owned())]);
    // The image's files are below the bundle.
    let root = RootBuilder::default().path("rootfs").readonly(false).build()?;
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process)
        .mounts(mounts::mounts(parts)?)
        .annotations(annotations)
        .linux(linux(parts)?);
    let mut spec = spec.build()?;
    // With the node's network there is no UTS namespace to name; the builder would put a name of its own.
    spec.set_hostname(Some(parts.hostname.to_owned()).filter(|name| parts.own_network && !name.is_empty()));
    Ok(spec)
}

/// Why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("its OCI configuration")]
    Oci(#[from] OciSpecError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error("neither the manifest nor the image says what to run; set command or args")]
    NothingToRun,
}

fn linux(parts: &Parts<'_>) -> Result<Linux, OciSpecError> {
    let text = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    LinuxBuilder::default()
        .namespaces(namespaces(parts)?)
        .cgroups_path(&parts.cgroup)
        .resources(resources(parts)?)
        .seccomp(seccomp::profile()?)
        .masked_paths(text(&MASKED))
        .readonly_paths(text(&READ_ONLY))
        .build()
}

fn namespaces(parts: &Parts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Ipc, Mount, Network, Pid, Uts};
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let pinned = |kind, name| LinuxNamespaceBuilder::default().typ(kind).path(parts.namespaces.path(name)).build();
    let mut namespaces = vec![own(Mount)?, own(Pid)?, pinned(Ipc, "ipc")?];
    if parts.own_network {
        namespaces.extend([pinned(Network, "net")?, pinned(Uts, "uts")?]);
    }
    Ok(namespaces)
}

fn resources(parts: &Parts<'_>) -> Result<LinuxResources, OciSpecError> {
    let wanted = &parts.config.resources;
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(shares) = wanted.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let (Some(quota), Some(period)) = (wanted.cpu_quota, wanted.cpu_period) {
        cpu = cpu.quota(quota).period(period);
    }
    let mut resources = LinuxResourcesBuilder::default().devices(devices()?).cpu(cpu.build()?);
    if let Some(limit) = wanted.memory_limit {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(limit).build()?);
    }
    resources.build()
}

/// No device of the node but those that every program expects.
fn devices() -> Result<Vec<LinuxDeviceCgroup>, OciSpecError> {
    let rule = |allow: bool, numbers: Option<(i64, Option<i64>)>| {
        let mut rule = LinuxDeviceCgroupBuilder::default().allow(allow).access("rwm");
        if let Some((major, minor)) = numbers {
            rule = rule.typ(LinuxDeviceType::C).major(major);
            if let Some(minor) = minor {
                rule = rule.minor(minor);
            }
        }
        rule.build()
    };
    let usual =
        [(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];
    std::iter::once(rule(false, None)).chain(usual.into_iter().map(|numbers| rule(true, Some(numbers)))).collect()
}
