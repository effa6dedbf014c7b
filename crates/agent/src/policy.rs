//! What manifests may ask for, by the node's configuration (R-REJ-12): who can write a manifest owns the node, unless this says
//! otherwise. The levels are Kubernetes' Pod Security Standards, as of 1.36.

use stanchion_pod::{
    Pod,
    k8s_openapi::api::core::v1::{
        AppArmorProfile, Container, PodSpec, SELinuxOptions, SeccompProfile, SecurityContext, Volume,
    },
};

use crate::{
    admission::SAFE,
    config::{Level, Policy},
    reference,
    room::Refusal,
};

/// Capabilities that may be added at the level *baseline*.
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
/// SELinux types that are for containers.
const CONTAINER_TYPES: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Why the policy does not let a pod run: all that it objects to.
pub(crate) fn refusal(policy: &Policy, pod: &Pod) -> Option<Refusal> {
    if policy.exempt_namespaces.contains(&pod.key.namespace) {
        return None;
    }
    let mut objections = Vec::new();
    if let Some(registries) = &policy.registries {
        let containers = pod.all_containers().map(|it| (format!("container {:?}", it.name), &it.image));
        let volumes = pod.volumes.iter().filter_map(|(name, volume)| match volume {
            stanchion_pod::Volume::Image { reference, .. } => Some((format!("volume {name:?}"), reference)),
            _ => None,
        });
        for (place, image) in containers.chain(volumes) {
            let image = reference::full(image);
            if !registries.iter().any(|allowed| is_from(&image, allowed)) {
                objections.push(format!("image {image} of {place} is from none of policy.registries"));
            }
        }
    }
    if policy.level != Level::Privileged
        && let Some(spec) = &pod.wire.spec
    {
        let mut violations = baseline(spec);
        if policy.level == Level::Restricted {
            violations.extend(restricted(spec));
        }
        objections.extend(violations.into_iter().map(|it| format!("violates PodSecurity \"{}\": {it}", policy.level)));
    }
    (!objections.is_empty()).then(|| ("PolicyViolation", objections.join("; ")))
}

/// Whether an image is from a registry, or from a part of it.
fn is_from(image: &str, allowed: &str) -> bool {
    let rest = image.strip_prefix(allowed.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.starts_with(['/', ':', '@']))
}

fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn baseline(spec: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    for (name, set) in [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)] {
        if set == Some(true) {
            found.push(format!("the pod must not set {name}=true"));
        }
    }
    for volume in spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some()) {
        found.push(format!("volume {:?} must not be a hostPath", volume.name));
    }
    let own = spec.security_context.as_ref();
    if let Some(own) = own {
        let lax = unconfined(&own.seccomp_profile, &own.app_armor_profile, &own.se_linux_options);
        found.extend(lax.map(|message| format!("the pod must not {message}")));
    }
    for sysctl in own.iter().flat_map(|own| own.sysctls.iter().flatten()) {
        if !SAFE.iter().any(|(safe, _)| *safe == sysctl.name.replace('/', ".")) {
            found.push(format!("sysctl {:?} is not a safe one", sysctl.name));
        }
    }
    for container in containers(spec) {
        let mut object = |message: &str| found.push(format!("container {:?} must not {message}", container.name));
        if container.ports.iter().flatten().any(|port| port.host_port.is_some_and(|port| port != 0)) {
            object("use a hostPort");
        }
        if hosts(container).any(|host| !host.is_empty()) {
            object("name a host in a probe or hook");
        }
        if let Some(own) = &container.security_context {
            for message in own_baseline(own) {
                object(&message);
            }
        }
    }
    found
}

fn own_baseline(own: &SecurityContext) -> Vec<String> {
    let mut found = Vec::new();
    if own.privileged == Some(true) {
        found.push("set privileged=true".to_owned());
    }
    for added in own.capabilities.iter().flat_map(|it| it.add.iter().flatten()) {
        if !HARMLESS.contains(&added.trim_start_matches("CAP_")) {
            found.push(format!("add the capability {added}"));
        }
    }
    if own.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        found.push("set procMount".to_owned());
    }
    let lax = unconfined(&own.seccomp_profile, &own.app_armor_profile, &own.se_linux_options);
    found.extend(lax.map(str::to_owned));
    found
}

/// What of a pod or a container is said not to confine it.
fn unconfined(
    seccomp: &Option<SeccompProfile>,
    app_armor: &Option<AppArmorProfile>,
    se_linux: &Option<SELinuxOptions>,
) -> impl Iterator<Item = &'static str> {
    let found = [
        (seccomp.as_ref().is_some_and(|it| it.type_ == "Unconfined"), "set seccompProfile.type to Unconfined"),
        (app_armor.as_ref().is_some_and(|it| it.type_ == "Unconfined"), "set appArmorProfile.type to Unconfined"),
        (se_linux.as_ref().is_some_and(is_no_containers), "set seLinuxOptions but for a container's type"),
    ];
    found.into_iter().filter_map(|(is_so, message)| is_so.then_some(message))
}

fn is_no_containers(options: &SELinuxOptions) -> bool {
    let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let kind = options.type_.as_deref().unwrap_or_default();
    is_set(&options.user) || is_set(&options.role) || !CONTAINER_TYPES.contains(&kind)
}

/// The hosts that a container's probes and hooks are to ask.
fn hosts(container: &Container) -> impl Iterator<Item = &str> {
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

fn restricted(spec: &PodSpec) -> Vec<String> {
    let mut found = Vec::new();
    for volume in spec.volumes.iter().flatten().filter(|volume| !is_plain(volume)) {
        found.push(format!("volume {:?} is of a kind that is not allowed", volume.name));
    }
    let pod = spec.security_context.as_ref();
    if pod.and_then(|pod| pod.run_as_user) == Some(0) {
        found.push("the pod must not set runAsUser=0".to_owned());
    }
    for container in containers(spec) {
        let own = container.security_context.as_ref();
        let mut object = |message: &str| found.push(format!("container {:?} must {message}", container.name));
        if own.and_then(|own| own.allow_privilege_escalation) != Some(false) {
            object("set allowPrivilegeEscalation=false");
        }
        let non_root = own.and_then(|own| own.run_as_non_root).or(pod.and_then(|pod| pod.run_as_non_root));
        if non_root != Some(true) {
            object("set runAsNonRoot=true");
        }
        if own.and_then(|own| own.run_as_user) == Some(0) {
            object("not set runAsUser=0");
        }
        let seccomp = own.and_then(|own| own.seccomp_profile.as_ref());
        if seccomp.or(pod.and_then(|pod| pod.seccomp_profile.as_ref())).is_none() {
            object("set seccompProfile.type to RuntimeDefault or Localhost");
        }
        let capabilities = own.and_then(|own| own.capabilities.as_ref());
        if !capabilities.is_some_and(|it| it.drop.iter().flatten().any(|dropped| dropped == "ALL")) {
            object("drop the capabilities ALL");
        }
        let mut added = capabilities.iter().flat_map(|it| it.add.iter().flatten());
        if added.any(|added| added.trim_start_matches("CAP_") != "NET_BIND_SERVICE") {
            object("not add other capabilities than NET_BIND_SERVICE");
        }
    }
    found
}

/// A volume that shows nothing of the node.
fn is_plain(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
        // Refused by its own name at the level below.
        || volume.host_path.is_some()
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
        refusal(&policy, &pod(spec)).map(|(_, message)| message).unwrap_or_default()
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
            let refused = refusal(&policy, &pod(&format!("{{containers: [{{name: c, image: '{image}'}}]}}")));
            assert_eq!(refused.is_none(), allowed, "R-REJ-12: {image}: {refused:?}");
        }
        let volume = "{containers: [{name: c, image: redis}], volumes: [{name: v, image: {reference: team/app}}]}";
        assert!(refusal(&policy, &pod(volume)).is_some_and(|it| it.1.contains("volume \"v\"")), "R-REJ-12");
        let exempt = Policy { exempt_namespaces: vec!["default".to_owned()], ..policy };
        assert_eq!(refusal(&exempt, &pod("{containers: [{name: c, image: team/app}]}")), None);
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
