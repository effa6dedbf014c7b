//! Pause process of a pod whose containers share a PID namespace: it does nothing but reap orphaned processes
//! (R-SEC-13).

use std::collections::HashMap;

use oci_spec::{
    OciSpecError,
    runtime::{
        Capabilities, LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResourcesBuilder, MountBuilder,
        PosixRlimit, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
    },
};
use stanchion_network::namespaces::{Namespaces, Own, USERS};
use stanchion_sdk::{privileges::oom_score_adj, proc};

use super::{capabilities::capabilities, devices, id_mappings};
use crate::seccomp;

/// Path of the program below its root.
pub(crate) const PROGRAM: &str = "pause";
/// The pod ends with it, so the kernel ends it among the last for lack of memory (R-RES-16).
const OOM_SCORE_ADJ: i32 = -998;

/// Returns its OCI configuration: no capability, nothing to write to, the pod's IPC.
pub(crate) fn spec(namespaces: &Namespaces, own: Own, cgroup: &str, group: &str) -> Result<Spec, OciSpecError> {
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        MountBuilder::default().destination(destination).typ(kind).source(kind).options(options).build()
    };
    let new = |kind| LinuxNamespaceBuilder::default().typ(kind).build();
    let pinned = |kind, name| LinuxNamespaceBuilder::default().typ(kind).path(namespaces.path(name)).build();
    let mut kinds = vec![new(LinuxNamespaceType::Mount)?, new(LinuxNamespaceType::Pid)?];
    if own.ipc {
        kinds.push(pinned(LinuxNamespaceType::Ipc, "ipc")?);
    }
    if own.users.is_some() {
        kinds.push(pinned(LinuxNamespaceType::User, USERS)?);
    }
    let process = ProcessBuilder::default()
        .terminal(false)
        .user(UserBuilder::default().uid(0_u32).gid(0_u32).additional_gids(Vec::new()).build()?)
        .args(vec![format!("/{PROGRAM}")])
        .env(Vec::<String>::new())
        .cwd("/")
        .no_new_privileges(true)
        .oom_score_adj(oom_score_adj(OOM_SCORE_ADJ))
        .rlimits(Vec::<PosixRlimit>::new())
        .capabilities(capabilities(Capabilities::new(), true)?);
    let mut linux = LinuxBuilder::default()
        .namespaces(kinds)
        .cgroups_path(cgroup)
        .resources(LinuxResourcesBuilder::default().devices(devices::rules(false)?).build()?)
        .seccomp(seccomp::profile(&Capabilities::new())?)
        .masked_paths(proc::masked())
        .readonly_paths(proc::read_only());
    if let Some(users) = own.users {
        linux = linux.uid_mappings(id_mappings(users)?).gid_mappings(id_mappings(users)?);
    }
    let mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"])?,
        mount("/dev", "tmpfs", &["nosuid", "noexec", "mode=755", "size=64k"])?,
    ];
    let annotations = HashMap::from([("io.containerd.runc.v2.group".to_owned(), group.to_owned())]);
    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path("rootfs").readonly(true).build()?)
        .process(process.build()?)
        .mounts(mounts)
        .annotations(annotations)
        .linux(linux.build()?)
        .build()?;
    spec.set_hostname(None);
    Ok(spec)
}
