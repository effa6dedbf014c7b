//! Security contexts in force for each container.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as wire;

use crate::{PodSecurity, Profile, SeLinux, Security, prepare};

pub(super) fn pod(spec: &wire::PodSpec) -> PodSecurity {
    let context = spec.security_context.as_ref();
    let groups = context.and_then(|it| it.supplemental_groups.as_ref()).into_iter().flatten();
    let groups = groups.chain(context.and_then(|it| it.fs_group.as_ref()));
    let sysctls = context.and_then(|it| it.sysctls.as_ref()).into_iter().flatten();
    PodSecurity {
        groups: groups.filter_map(|id| u32::try_from(*id).ok()).collect(),
        strict_groups: context.and_then(|it| it.supplemental_groups_policy.as_deref()) == Some("Strict"),
        sysctls: sysctls.map(|it| (it.name.clone(), it.value.clone())).collect(),
        host_pid: spec.host_pid.unwrap_or(false),
        share_processes: spec.share_process_namespace.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        own_users: spec.host_users == Some(false),
    }
}

pub(super) fn container(wire: &wire::Container, pod: &wire::Pod) -> Security {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = wire.security_context.clone().unwrap_or_default();
    let id = |own: Option<i64>, of_pod: Option<i64>| own.or(of_pod).and_then(|id| u32::try_from(id).ok());
    let capabilities = own.capabilities.unwrap_or_default();
    let seccomp = own.seccomp_profile.or_else(|| of_pod?.seccomp_profile.clone());
    let annotated = || annotated(&wire.name, pod.metadata.annotations.as_ref()?);
    let app_armor = own.app_armor_profile.or_else(annotated).or_else(|| of_pod?.app_armor_profile.clone());
    Security {
        user: id(own.run_as_user, of_pod.and_then(|it| it.run_as_user)),
        group: id(own.run_as_group, of_pod.and_then(|it| it.run_as_group)),
        non_root: own.run_as_non_root.or_else(|| of_pod?.run_as_non_root).unwrap_or(false),
        privileged: own.privileged.unwrap_or(false),
        add_capabilities: names(capabilities.add),
        drop_capabilities: names(capabilities.drop),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        read_only_root: own.read_only_root_filesystem.unwrap_or(false),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp: seccomp.map(|it| profile(&it.type_, it.localhost_profile)),
        app_armor: app_armor.map(|it| profile(&it.type_, it.localhost_profile)),
        se_linux: own.se_linux_options.or_else(|| of_pod?.se_linux_options.clone()).map(|it| SeLinux {
            user: it.user.unwrap_or_default(),
            role: it.role.unwrap_or_default(),
            kind: it.type_.unwrap_or_default(),
            level: it.level.unwrap_or_default(),
        }),
    }
}

/// Returns the AppArmor profile that the container's old annotation names (R-SEC-9).
fn annotated(container: &str, annotations: &BTreeMap<String, String>) -> Option<wire::AppArmorProfile> {
    prepare::app_armor_profile(annotations.get(&format!("{}{container}", prepare::APP_ARMOR))?)
}

fn profile(kind: &str, localhost: Option<String>) -> Profile {
    match kind {
        "Localhost" => Profile::Localhost(localhost.unwrap_or_default()),
        "Unconfined" => Profile::Unconfined,
        _ => Profile::RuntimeDefault,
    }
}

/// Normalizes names of capabilities: upper case, without `CAP_` (R-SEC-6).
fn names(names: Option<Vec<String>>) -> Vec<String> {
    let plain = |name: String| {
        let name = name.to_uppercase();
        name.strip_prefix("CAP_").map_or_else(|| name.clone(), str::to_owned)
    };
    names.unwrap_or_default().into_iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security(pod: &str, container: &str) -> Security {
        let pod: wire::Pod = serde_json::from_str(&format!(
            r#"{{"metadata": {{"annotations": {{"container.apparmor.security.beta.kubernetes.io/a": "localhost/old"}}}},
                "spec": {{"securityContext": {pod}, "containers": [{{"name": "a", "securityContext": {container}}}]}}}}"#
        ))
        .expect("a pod");
        super::container(&pod.spec.as_ref().expect("a spec").containers[0], &pod)
    }

    #[test]
    fn a_containers_values_go_before_the_pods() {
        let of_pod = r#"{"runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
            "appArmorProfile": {"type": "Unconfined"}, "seLinuxOptions": {"level": "s0"}}"#;
        let inherited = security(of_pod, "{}");
        assert_eq!((inherited.user, inherited.group, inherited.non_root), (Some(1), Some(2), true), "R-SEC-1");
        assert_eq!(inherited.seccomp, Some(Profile::RuntimeDefault), "R-SEC-8");
        assert_eq!(inherited.app_armor, Some(Profile::Localhost("old".to_owned())), "R-SEC-9: the annotation");
        assert_eq!(inherited.se_linux.map(|it| it.level).as_deref(), Some("s0"), "R-SEC-15");
        let own = r#"{"runAsUser": 0, "runAsNonRoot": false, "appArmorProfile": {"type": "RuntimeDefault"},
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}}"#;
        let own = security(of_pod, own);
        assert_eq!((own.user, own.group, own.non_root), (Some(0), Some(2), false), "R-SEC-1");
        assert_eq!(own.seccomp, Some(Profile::Localhost("a/b.json".to_owned())));
        assert_eq!(own.app_armor, Some(Profile::RuntimeDefault));
    }

    #[test]
    fn capabilities_are_written_one_way() {
        let own = r#"{"capabilities": {"add": ["CAP_NET_ADMIN", "sys_time"], "drop": ["ALL"]}}"#;
        let own = security("{}", own);
        assert_eq!(
            (own.add_capabilities, own.drop_capabilities),
            (vec!["NET_ADMIN".to_owned(), "SYS_TIME".to_owned()], vec!["ALL".to_owned()]),
            "R-SEC-6"
        );
    }

    #[test]
    fn what_is_not_said_is_not_asked_for() {
        let nothing = security("{}", "{}");
        assert_eq!(nothing.seccomp, None);
        assert!(!nothing.no_new_privileges && !nothing.privileged && !nothing.read_only_root, "R-SEC-4");
        assert!(security("{}", r#"{"allowPrivilegeEscalation": false}"#).no_new_privileges, "R-SEC-4");
    }
}
