//! OCI runtime configuration of a container. Every field is set here: the libraries' defaults are other programs'
//! choices.
//!
//! # Layout
//! - [`spec`]: the whole. [`process`], [`capabilities`]: program, user and rights.
//! - [`mounts`], [`devices`]: the files it sees. [`confinement`]: seccomp, AppArmor, SELinux. [`pause`]: the pause
//!   process.

mod capabilities;
mod confinement;
mod devices;
mod mounts;
pub(crate) mod pause;
mod process;

use std::collections::HashMap;

use oci_spec::{
    OciSpecError,
    runtime::{
        Linux, LinuxBuilder, LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxIdMapping, LinuxIdMappingBuilder,
        LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder,
        LinuxResources, LinuxResourcesBuilder, RootBuilder, Spec, SpecBuilder,
    },
};
use stanchion_network::namespaces::{Namespaces, Own, USERS};
use stanchion_sdk::{
    proc,
    runtime::{ContainerConfig, HugepageLimit, IdRange, PidMode},
    users::{Tables, UserError},
};

use crate::{cgroup, image::Resolved};

pub(crate) use process::exec;

/// Inputs of a container's configuration.
pub(crate) struct Parts<'a> {
    pub config: &'a ContainerConfig,
    pub image: &'a Resolved,
    /// The image's user tables.
    pub tables: &'a Tables,
    pub namespaces: &'a Namespaces,
    pub own: Own,
    pub pid: PidMode,
    pub hostname: &'a str,
    /// Path of the cgroup, in the OCI runtime's form.
    pub cgroup: &'a str,
    /// Id that groups the containers of a pod under one shim.
    pub group: &'a str,
}

/// Builds the configuration.
pub(crate) fn spec(parts: &Parts<'_>) -> Result<Spec, SpecError> {
    let process = process::process(parts)?;
    let annotations = HashMap::from([("io.containerd.runc.v2.group".to_owned(), parts.group.to_owned())]);
    // Relative to the bundle, in which the shim mounts the image's files.
    let root = RootBuilder::default().path("rootfs").readonly(parts.config.security.read_only_root).build()?;
    let spec = SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .process(process)
        .mounts(mounts::mounts(parts)?)
        .annotations(annotations)
        .linux(linux(parts)?);
    let mut spec = spec.build()?;
    // With the node's network there is no UTS namespace to name; the builder would set a name of its own.
    spec.set_hostname(Some(parts.hostname.to_owned()).filter(|name| parts.own.network && !name.is_empty()));
    Ok(spec)
}

/// Reason why a configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("its OCI configuration")]
    Oci(#[from] OciSpecError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Confinement(#[from] confinement::ConfinementError),
    #[error("the devices of this node")]
    Devices(#[from] std::io::Error),
    #[error("neither the manifest nor the image says what to run; set command or args")]
    NothingToRun,
}

fn linux(parts: &Parts<'_>) -> Result<Linux, SpecError> {
    let security = &parts.config.security;
    let mut linux =
        LinuxBuilder::default().namespaces(namespaces(parts)?).cgroups_path(parts.cgroup).resources(resources(parts)?);
    if let Some(users) = parts.own.users {
        linux = linux.uid_mappings(id_mappings(users)?).gid_mappings(id_mappings(users)?);
    }
    if let Some(propagation) = mounts::propagation(parts) {
        linux = linux.rootfs_propagation(propagation);
    }
    if let Some(profile) = confinement::seccomp(security)? {
        linux = linux.seccomp(profile);
    }
    if let Some(context) = confinement::se_linux(security) {
        linux = linux.mount_label(context.of_files());
    }
    if security.privileged {
        linux = linux.devices(devices::of_node()?);
    }
    let mut linux = linux.build()?;
    // The builder would set lists of its own.
    let is_masked = !security.privileged && !security.unmasked_proc;
    linux.set_masked_paths(is_masked.then(proc::masked)).set_readonly_paths(is_masked.then(proc::read_only));
    Ok(linux)
}

fn namespaces(parts: &Parts<'_>) -> Result<Vec<LinuxNamespace>, OciSpecError> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let own = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let pinned = |kind, name| LinuxNamespaceBuilder::default().typ(kind).path(parts.namespaces.path(name)).build();
    let mut namespaces = vec![own(Mount)?];
    match parts.pid {
        PidMode::Container => namespaces.push(own(Pid)?),
        PidMode::Pod => namespaces.push(pinned(Pid, "pid")?),
        PidMode::Host => {}
    }
    if parts.own.ipc {
        namespaces.push(pinned(Ipc, "ipc")?);
    }
    if parts.own.network {
        namespaces.extend([pinned(Network, "net")?, pinned(Uts, "uts")?]);
    }
    if parts.own.users.is_some() {
        namespaces.push(pinned(User, USERS)?);
    }
    if cgroup::is_unified() && !parts.config.security.privileged {
        namespaces.push(own(Cgroup)?);
    }
    Ok(namespaces)
}

/// Returns a pod's UID/GID mapping, the same as in its pinned user namespace.
fn id_mappings(users: IdRange) -> Result<Vec<LinuxIdMapping>, OciSpecError> {
    let mapping = LinuxIdMappingBuilder::default().container_id(0_u32).host_id(users.first).size(users.length);
    Ok(vec![mapping.build()?])
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
    let mut resources =
        LinuxResourcesBuilder::default().devices(devices::rules(parts.config.security.privileged)?).cpu(cpu.build()?);
    if let Some(limit) = wanted.memory_limit {
        let memory = LinuxMemoryBuilder::default().limit(limit);
        // `swap` is the limit of memory and swap together: no swap (R-RES-14).
        let memory = if cgroup::limits_swap() { memory.swap(limit) } else { memory };
        resources = resources.memory(memory.build()?);
    }
    if let Some(limit) = wanted.pids_limit {
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build()?);
    }
    if cgroup::has_controller("hugetlb") {
        let limit = |it: &HugepageLimit| {
            let bytes = i64::try_from(it.limit).unwrap_or(i64::MAX);
            LinuxHugepageLimitBuilder::default().page_size(it.page_size.clone()).limit(bytes).build()
        };
        let limits = wanted.hugepage_limits.iter().map(limit).collect::<Result<Vec<_>, _>>()?;
        resources = resources.hugepage_limits(limits);
    }
    if cgroup::is_unified() {
        // A container that has lost one of its processes is no longer what was started (R-RES-15).
        resources = resources.unified(HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]));
    }
    resources.build()
}
