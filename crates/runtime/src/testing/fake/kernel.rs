//! Makes the kernel's files that a fake container sees below `/proc`, from its configuration.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use super::state::{Container, State};
use crate::{IdRange, PidMode, Profile, Security, testing::capabilities};

/// Returns the kernel's file at this path, if it is one.
pub(super) fn file(state: &State, container: &Container, path: &Path) -> Option<Vec<u8>> {
    let config = &container.config;
    let path = path.to_str()?;
    let text = match path {
        "/proc/self/status" | "/proc/1/status" => status(state, container),
        "/proc/self/oom_score_adj" | "/proc/1/oom_score_adj" => {
            format!("{}\n", config.resources.oom_score_adj.unwrap_or(0))
        }
        "/proc/self/mounts" | "/proc/mounts" => {
            let security = &config.security;
            let masked =
                if security.unmasked_proc || security.privileged { "" } else { "proc /proc/sys proc ro 0 0\n" };
            let access = if security.read_only_root { "ro" } else { "rw" };
            format!("overlay / overlay {access} 0 0\nproc /proc proc rw 0 0\n{masked}")
        }
        "/proc/1/uid_map" | "/proc/self/uid_map" | "/proc/self/gid_map" => {
            let range = state.sandboxes.get(&config.sandbox)?.config.user_namespace;
            let IdRange { first, length } = range.unwrap_or(IdRange { first: 0, length: u32::MAX });
            format!("{:10} {first:10} {length:10}\n", 0)
        }
        _ => {
            let sysctls = &state.sandboxes.get(&config.sandbox)?.config.sysctls;
            let set = sysctls.iter().rfind(|it| it.path().as_deref() == path.strip_prefix("/proc/sys/"))?;
            format!("{}\n", set.value.split_whitespace().collect::<Vec<_>>().join("\t"))
        }
    };
    Some(text.into_bytes())
}

/// Returns the target of the kernel's link at this path: a namespace with its number.
pub(super) fn link(state: &State, container: &Container, path: &str) -> Option<String> {
    let kind = path.strip_prefix("/proc/self/ns/")?;
    let sandbox = &state.sandboxes.get(&container.config.sandbox)?.config;
    let of_node = || Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
    let of_pod = || Some(format!("{kind}:[{}]", sandbox.uid));
    let own = || Some(format!("{kind}:[{}]", container.info.id));
    match kind {
        "pid" => match sandbox.pid {
            PidMode::Container => own(),
            PidMode::Pod => of_pod(),
            PidMode::Host => of_node(),
        },
        "ipc" if sandbox.ipc == crate::IpcMode::Host => of_node(),
        "net" | "uts" if sandbox.network == crate::NetworkMode::Host => of_node(),
        "ipc" | "net" | "uts" => of_pod(),
        _ => own(),
    }
}

fn status(state: &State, container: &Container) -> String {
    let security = &container.config.security;
    let of_image = state.images.users.get(&container.config.image).and_then(|user| user.parse().ok());
    let (user, group) = (security.user.or(of_image).unwrap_or(0), security.group.unwrap_or(0));
    let groups: BTreeSet<u32> = security.groups.iter().copied().chain([group]).collect();
    let bounding = set(security);
    let effective = if user == 0 { bounding } else { 0 };
    let seccomp = match security.seccomp {
        _ if security.privileged => 0,
        Profile::Unconfined => 0,
        Profile::RuntimeDefault | Profile::Localhost { .. } => 2,
    };
    let mut text = String::new();
    for (name, id) in [("Uid", user), ("Gid", group)] {
        writeln!(text, "{name}:\t{id}\t{id}\t{id}\t{id}").ok();
    }
    let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
    writeln!(text, "Groups:\t{} ", groups.join(" ")).ok();
    for (name, set) in
        [("CapInh", 0), ("CapPrm", effective), ("CapEff", effective), ("CapBnd", bounding), ("CapAmb", 0)]
    {
        writeln!(text, "{name}:\t{set:016x}").ok();
    }
    writeln!(text, "NoNewPrivs:\t{}", u8::from(security.no_new_privileges)).ok();
    writeln!(text, "Seccomp:\t{seccomp}").ok();
    text
}

/// Returns a container's capability bounding set.
fn set(security: &Security) -> u64 {
    let has_all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let named = |names: &[String]| {
        let names = names.iter().filter(|name| *name != "ALL");
        names.filter_map(|name| capabilities::bits(name)).fold(0, |all, bits| all | bits)
    };
    let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
    match () {
        () if security.privileged => capabilities::ALL,
        () if has_all(add) => capabilities::ALL & !named(drop),
        () if has_all(drop) => named(add) & !named(drop),
        () => (capabilities::USUAL | named(add)) & !named(drop),
    }
}
