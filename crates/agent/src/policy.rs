//! Limits on manifests by the node's configuration (R-REJ-12). Without them, anyone who can write a manifest owns the
//! node. The levels are Kubernetes' Pod Security Standards, as of 1.36.

#[cfg(test)]
mod tests;

use stanchion_plan::reason::{Explanation, Reason};
use stanchion_pod::{
    Container, Pod, Profile, SeLinux, Volume,
    k8s_openapi::api::core::v1::{self as wire, PodSpec},
};

use crate::{
    admission::{SAFE, dotted},
    config::{Level, Policy},
    reference,
};

/// Capabilities that level *baseline* allows to add.
const HARMLESS: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// SELinux types for containers.
const CONTAINER_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Returns all violations of the policy by a pod; `None` if it permits the pod.
pub(crate) fn rejection(policy: &Policy, pod: &Pod) -> Option<Explanation> {
    if policy.exempt_namespaces.contains(&pod.key.namespace) {
        return None;
    }
    let mut objections = Vec::new();
    if let Some(registries) = &policy.registries {
        let containers = pod.all_containers().map(|it| (format!("container {:?}", it.name), &it.image));
        let volumes = pod.volumes.iter().filter_map(|(name, volume)| match volume {
            Volume::Image { reference, .. } => Some((format!("volume {name:?}"), reference)),
            _ => None,
        });
        for (place, image) in containers.chain(volumes) {
            let image = reference::full(image);
            if !registries.iter().any(|allowed| reference::is_from(&image, allowed)) {
                objections.push(format!("image {image} of {place} is not from any registry in policy.registries"));
            }
        }
    }
    if policy.level != Level::Privileged {
        let mut violations = baseline(pod);
        if policy.level == Level::Restricted {
            violations.extend(restricted(pod));
        }
        objections.extend(violations.into_iter().map(|it| format!("violates PodSecurity \"{}\": {it}", policy.level)));
    }
    (!objections.is_empty()).then(|| Explanation::new(Reason::PolicyViolation, objections.join("; ")))
}

/// Returns the violations of level *baseline*: in the settings in force, whichever field or annotation they come from,
/// and, as in Kubernetes, in settings of the whole pod that every container overrides.
fn baseline(pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    let security = &pod.security;
    for (name, set) in
        [("hostNetwork", pod.host_network), ("hostPID", security.host_pid), ("hostIPC", security.host_ipc)]
    {
        if set {
            found.push(format!("the pod must not set {name}=true"));
        }
    }
    for (name, _) in pod.volumes.iter().filter(|(_, volume)| matches!(volume, Volume::HostPath { .. })) {
        found.push(format!("volume {name:?} must not be a hostPath"));
    }
    for (name, _) in &security.sysctls {
        if !SAFE.iter().any(|(safe, _)| *safe == dotted(name)) {
            found.push(format!("sysctl {name:?} is not a safe one"));
        }
    }
    for (annotation, profile) in pod.annotations.iter().filter(|(key, _)| key.starts_with(APP_ARMOR)) {
        if !profile.is_empty() && profile != "runtime/default" && !profile.starts_with("localhost/") {
            found.push(format!("annotation {annotation} must not be {profile:?}"));
        }
    }
    let spec = pod.wire.spec.as_ref();
    found.extend(spec.into_iter().flat_map(of_whole_pod).map(|message| format!("the pod must not {message}")));
    for container in pod.all_containers() {
        let messages = of_container(container, security.own_users);
        found.extend(messages.into_iter().map(|it| format!("container {:?} must not {it}", container.name)));
    }
    for container in spec.into_iter().flat_map(containers) {
        if hosts(container).any(|host| !host.is_empty()) {
            found.push(format!("container {:?} must not name a host in a probe or hook", container.name));
        }
        let windows = container.security_context.as_ref().and_then(|own| own.windows_options.as_ref());
        if windows.and_then(|windows| windows.host_process) == Some(true) {
            found.push(format!("container {:?} must not set hostProcess=true", container.name));
        }
    }
    found
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &wire::Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Returns the violations in the pod's security context, even in settings that every container overrides.
fn of_whole_pod(spec: &PodSpec) -> Vec<&'static str> {
    let Some(context) = &spec.security_context else { return Vec::new() };
    let se_linux = context.se_linux_options.clone().map(|it| SeLinux {
        user: it.user.unwrap_or_default(),
        role: it.role.unwrap_or_default(),
        kind: it.type_.unwrap_or_default(),
        level: it.level.unwrap_or_default(),
    });
    let windows = context.windows_options.as_ref().and_then(|it| it.host_process);
    let found = [
        (context.seccomp_profile.as_ref().is_some_and(|it| it.type_ == "Unconfined"), SECCOMP),
        (context.app_armor_profile.as_ref().is_some_and(|it| it.type_ == "Unconfined"), APP_ARMOR_TYPE),
        (se_linux.is_some_and(|it| is_no_containers(&it)), SE_LINUX),
        (windows == Some(true), "set hostProcess=true"),
    ];
    found.into_iter().filter_map(|(is_so, message)| is_so.then_some(message)).collect()
}

/// Prefix of the annotations that name containers' AppArmor profiles.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP: &str = "set seccompProfile.type to Unconfined";
const APP_ARMOR_TYPE: &str = "set appArmorProfile.type to Unconfined";
const SE_LINUX: &str = "set seLinuxOptions other than a container type";

/// Returns the violations in the settings in force for a container.
fn of_container(container: &Container, own_users: bool) -> Vec<String> {
    let security = &container.security;
    let mut found = Vec::new();
    let mut object = |is_so: bool, message: &str| {
        if is_so {
            found.push(message.to_owned());
        }
    };
    object(container.ports.iter().any(|port| port.host_port.is_some()), "use a hostPort");
    object(security.privileged, "set privileged=true");
    // In a user namespace, a container's `/proc` does not show the node.
    object(security.unmasked_proc && !own_users, "set procMount");
    object(security.seccomp == Some(Profile::Unconfined), SECCOMP);
    object(security.app_armor == Some(Profile::Unconfined), APP_ARMOR_TYPE);
    object(security.se_linux.as_ref().is_some_and(is_no_containers), SE_LINUX);
    for added in security.add_capabilities.iter().filter(|added| !HARMLESS.contains(&added.as_str())) {
        found.push(format!("add the capability {added}"));
    }
    found
}

fn is_no_containers(options: &SeLinux) -> bool {
    !options.user.is_empty() || !options.role.is_empty() || !CONTAINER_TYPES.contains(&options.kind.as_str())
}

/// Returns the hosts in a container's probes and hooks.
fn hosts(container: &wire::Container) -> impl Iterator<Item = &str> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let probed = probes.into_iter().flatten().flat_map(|probe| {
        [
            probe.http_get.as_ref().and_then(|it| it.host.as_deref()),
            probe.tcp_socket.as_ref().and_then(|it| it.host.as_deref()),
        ]
    });
    let hooks = container.lifecycle.iter().flat_map(|it| [it.post_start.as_ref(), it.pre_stop.as_ref()]).flatten();
    let hooked = hooks.flat_map(|hook| {
        [
            hook.http_get.as_ref().and_then(|it| it.host.as_deref()),
            hook.tcp_socket.as_ref().and_then(|it| it.host.as_deref()),
        ]
    });
    probed.chain(hooked).flatten()
}

fn restricted(pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    let spec = pod.wire.spec.as_ref();
    for volume in spec.into_iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| !is_plain(volume)) {
        found.push(format!("volume {:?} is of a kind that is not allowed", volume.name));
    }
    let of_pod = spec.and_then(|spec| spec.security_context.as_ref());
    // In a user namespace, a pod's root has no rights on the node.
    let own_users = pod.security.own_users;
    if of_pod.and_then(|pod| pod.run_as_user) == Some(0) && !own_users {
        found.push("the pod must not set runAsUser=0".to_owned());
    }
    if of_pod.and_then(|pod| pod.run_as_non_root) == Some(false) && !own_users {
        found.push("the pod must not set runAsNonRoot=false".to_owned());
    }
    for container in pod.all_containers() {
        let security = &container.security;
        let mut object = |is_so: bool, message: &str| {
            if is_so {
                found.push(format!("container {:?} must {message}", container.name));
            }
        };
        object(!security.no_new_privileges, "set allowPrivilegeEscalation=false");
        object(!security.non_root && !own_users, "set runAsNonRoot=true");
        object(security.user == Some(0) && !own_users, "not set runAsUser=0");
        object(security.unmasked_proc && own_users, "not set procMount");
        object(security.seccomp.is_none(), "set seccompProfile.type to RuntimeDefault or Localhost");
        object(!security.drop_capabilities.iter().any(|dropped| dropped == "ALL"), "drop the capabilities ALL");
        let is_other = |added: &String| added != "NET_BIND_SERVICE";
        object(security.add_capabilities.iter().any(is_other), "not add other capabilities than NET_BIND_SERVICE");
    }
    found
}

/// Returns whether level *restricted* allows the kind of a volume.
fn is_plain(volume: &wire::Volume) -> bool {
    // A volume without a source is an emptyDir. Level *baseline* already rejects a hostPath.
    let others = wire::Volume {
        name: String::new(),
        config_map: None,
        csi: None,
        downward_api: None,
        empty_dir: None,
        ephemeral: None,
        image: None,
        persistent_volume_claim: None,
        projected: None,
        secret: None,
        host_path: None,
        ..volume.clone()
    };
    others == wire::Volume::default()
}
