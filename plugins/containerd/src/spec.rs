//! The OCI runtime configuration of a container. Every field is ours: the libraries' defaults are other programs' choices.

mod mounts;
mod process;
mod user;

use std::{collections::HashMap, fs, sync::OnceLock};

use oci_spec::{
    OciSpecError,
    runtime::{
        Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
        LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources,
        LinuxResourcesBuilder, RootBuilder, Spec, SpecBuilder,
    },
};
use stanchion_sdk::runtime::ContainerConfig;

use crate::{cgroup, image::Resolved, namespaces::Namespaces, seccomp};

pub(crate) use process::exec;
pub(crate) use user::{Tables, UserError, has_names};

/// What a container's configuration is made from.
pub(crate) struct Parts<'a> {
    pub config: &'a ContainerConfig,
    pub image: &'a Resolved,
    /// The image's users; empty where no names have to be looked up.
    pub tables: &'a Tables,
    pub namespaces: &'a Namespaces,
    pub own_network: bool,
    pub hostname: &'a str,
    /// From the root of each hierarchy.
    pub cgroup: &'a str,
    /// Groups the containers of a pod under one shim.
    pub group: &'a str,
}

/// Files of the kernel that tell of, or act on, the whole node (R-SEC-7).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
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
    let linux = match mounts::propagation(parts) {
        Some(propagation) => LinuxBuilder::default().rootfs_propagation(propagation),
        None => LinuxBuilder::default(),
    };
    linux
        .namespaces(namespaces(parts)?)
        .cgroups_path(parts.cgroup)
        .resources(resources(parts)?)
        .seccomp(seccomp::profile()?)
        .masked_paths(text(&MASKED).into_iter().chain(thermal_throttles().iter().cloned()).collect::<Vec<_>>())
        .readonly_paths(text(&READ_ONLY))
        .build()
}

/// How hot each processor is tells one container of another's work (R-SEC-7).
fn thermal_throttles() -> &'static [String] {
    static THROTTLES: OnceLock<Vec<String>> = OnceLock::new();
    THROTTLES.get_or_init(|| {
        let processors = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        let throttles = processors.map(|processor| processor.path().join("thermal_throttle"));
        throttles.filter(|path| path.is_dir()).map(|path| path.to_string_lossy().into_owned()).collect()
    })
}

fn namespaces(parts: &Parts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let pinned = |kind, name| LinuxNamespaceBuilder::default().typ(kind).path(parts.namespaces.path(name)).build();
    let mut namespaces = vec![own(Mount)?, own(Pid)?, pinned(Ipc, "ipc")?];
    if parts.own_network {
        namespaces.extend([pinned(Network, "net")?, pinned(Uts, "uts")?]);
    }
    if cgroup::is_unified() {
        namespaces.push(own(Cgroup)?);
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
        let memory = LinuxMemoryBuilder::default().limit(limit);
        // The limit of memory and swap together: no swap (R-RES-14).
        let memory = if cgroup::limits_swap() { memory.swap(limit) } else { memory };
        resources = resources.memory(memory.build()?);
    }
    if cgroup::is_unified() {
        // Without one of its processes a container is no longer what was started (R-RES-15).
        resources = resources.unified(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]));
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
