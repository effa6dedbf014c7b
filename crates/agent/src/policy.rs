//! Limits on manifests by the node's configuration (R-REJ-12). Without them, anyone who can write a manifest owns the
//! node. The levels are Kubernetes' Pod Security Standards, as of 1.36.

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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn said(level: Level, spec: &str) -> String {
        let policy = Policy { level, ..Policy::default() };
        rejection(&policy, &pod(spec)).map(|it| it.message.to_string()).unwrap_or_default()
    }

    fn with(context: &str) -> String {
        format!("{{containers: [{{name: c, image: a, securityContext: {context}}}]}}")
    }

    #[test]
    fn registries_are_taken_whole() {
        let registries = Some(vec!["docker.io/library/".to_owned(), "r.example:5000".to_owned()]);
        let policy = Policy { registries, ..Policy::default() };
        for (image, allowed) in [
            ("redis", true),
            ("docker.io/library/redis:7", true),
            ("team/app", false),
            ("r.example:5000/a/b", true),
            ("r.example:50001/a/b", false),
            ("r.example/a", false),
        ] {
            let refused = rejection(&policy, &pod(&format!("{{containers: [{{name: c, image: '{image}'}}]}}")));
            assert_eq!(refused.is_none(), allowed, "R-REJ-12: {image}: {refused:?}");
        }
        let volume = "{containers: [{name: c, image: redis}], volumes: [{name: v, image: {reference: team/app}}]}";
        assert!(rejection(&policy, &pod(volume)).is_some_and(|it| it.message.contains("volume \"v\"")), "R-REJ-12");
        let exempt = Policy { exempt_namespaces: vec!["default".to_owned()], ..policy };
        assert_eq!(rejection(&exempt, &pod("{containers: [{name: c, image: team/app}]}")), None);
    }

    #[test]
    fn baseline_keeps_pods_away_from_the_node() {
        let plain = "{containers: [{name: c, image: a, securityContext: {capabilities: {add: [KILL]}}}]}";
        assert_eq!(said(Level::Baseline, plain), "", "R-GAP-22");
        for (spec, words) in [
            (with("{privileged: true}"), "container \"c\" must not set privileged=true"),
            (with("{capabilities: {add: [SYS_ADMIN]}}"), "must not add the capability SYS_ADMIN"),
            (with("{seccompProfile: {type: Unconfined}}"), "must not set seccompProfile.type to Unconfined"),
            (with("{appArmorProfile: {type: Unconfined}}"), "must not set appArmorProfile.type to Unconfined"),
            (with("{seLinuxOptions: {type: spc_t}}"), "must not set seLinuxOptions"),
            ("{hostNetwork: true, containers: [{name: c, image: a}]}".to_owned(), "must not set hostNetwork=true"),
            ("{hostPID: true, containers: [{name: c, image: a}]}".to_owned(), "must not set hostPID=true"),
            (
                "{containers: [{name: c, image: a}], volumes: [{name: v, hostPath: {path: /}}]}".to_owned(),
                "volume \"v\" must not be a hostPath",
            ),
            (
                "{containers: [{name: c, image: a, ports: [{containerPort: 1, hostPort: 1}]}]}".to_owned(),
                "must not use a hostPort",
            ),
            (
                "{containers: [{name: c, image: a, livenessProbe: {tcpSocket: {port: 1, host: 10.0.0.1}}}]}".to_owned(),
                "must not name a host",
            ),
            (
                "{securityContext: {sysctls: [{name: net.core.somaxconn, value: '1'}]}, containers: [{name: c, image: a}]}"
                    .to_owned(),
                "is not a safe one",
            ),
        ] {
            let said = said(Level::Baseline, &spec);
            assert!(said.starts_with("violates PodSecurity \"baseline\": ") && said.contains(words), "{words}: {said}");
            assert_eq!(self::said(Level::Privileged, &spec), "", "R-REJ-12: nothing is refused by default");
        }
    }

    #[test]
    fn what_is_executed_is_judged_however_it_is_written() {
        let said = |level: Level, text: &str| {
            let text = format!("apiVersion: v1\nkind: Pod\n{text}\n");
            let mut pods =
                stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods;
            let policy = Policy { level, ..Policy::default() };
            rejection(&policy, &pods.remove(0)).map(|it| it.message.to_string()).unwrap_or_default()
        };
        let fine = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, \
                    capabilities: {drop: [all]}}";
        let annotated = |container: &str, profile: &str, spec: &str| {
            format!(
                "metadata: {{name: a, annotations: {{container.apparmor.security.beta.kubernetes.io/{container}: {profile}}}}}\nspec: {spec}"
            )
        };
        let spec = format!(
            "{{initContainers: [{{name: i, image: a, restartPolicy: Always, {fine}}}], containers: [{{name: c, image: a, {fine}}}]}}"
        );
        for level in [Level::Baseline, Level::Restricted] {
            for container in ["c", "i"] {
                let found = said(level, &annotated(container, "unconfined", &spec));
                let words = format!("container {container:?} must not set appArmorProfile.type to Unconfined");
                assert!(found.contains(&words), "R-GAP-22: {found}");
            }
            for profile in ["runtime/default", "localhost/mine"] {
                assert_eq!(said(level, &annotated("c", profile, &spec)), "", "R-GAP-22: {profile}");
            }
        }
        let pod = |context: &str, own: &str| {
            format!(
                "metadata: {{name: a}}\nspec: {{securityContext: {context}, containers: [{{name: c, image: a, {own}}}]}}"
            )
        };
        for (context, own, words) in [
            ("{seccompProfile: {type: Unconfined}}", fine, "the pod must not set seccompProfile.type"),
            ("{appArmorProfile: {type: Unconfined}}", fine, "container \"c\" must not set appArmorProfile.type"),
            ("{seLinuxOptions: {role: r}}", fine, "container \"c\" must not set seLinuxOptions"),
            ("{runAsUser: 0}", fine, "container \"c\" must not set runAsUser=0"),
            ("{runAsNonRoot: false}", fine, "the pod must not set runAsNonRoot=false"),
            ("{sysctls: [{name: net/ipv4.tcp_syncookies, value: '1'}]}", fine, "is not a safe one"),
            ("{}", "ports: [{containerPort: 1, hostPort: 2}]", "must not use a hostPort"),
            ("{}", "securityContext: {capabilities: {add: [cap_sys_admin]}}", "add the capability SYS_ADMIN"),
            ("{}", "lifecycle: {preStop: {httpGet: {port: 1, host: h}}}", "must not name a host"),
        ] {
            let found = said(Level::Restricted, &pod(context, own));
            assert!(found.contains(words), "R-GAP-22: {words}: {found}");
        }
        let inherited = "{runAsNonRoot: true, seccompProfile: {type: Localhost, localhostProfile: p.json}}";
        let own = "ports: [{containerPort: 1, hostPort: 0}], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
        assert_eq!(said(Level::Restricted, &pod(inherited, own)), "", "R-SEC-1: a container has what its pod says");
    }

    #[test]
    fn restricted_says_all_that_is_lacking() {
        let found = said(Level::Restricted, &with("{runAsUser: 0}"));
        for words in
            ["allowPrivilegeEscalation=false", "runAsNonRoot=true", "not set runAsUser=0", "seccompProfile", "drop the"]
        {
            assert!(found.contains(words), "R-GAP-22: {words}: {found}");
        }
        let fine = "{allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, \
                    capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}";
        assert_eq!(said(Level::Restricted, &with(fine)), "");
    }
}
