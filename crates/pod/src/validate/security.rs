//! Validates security contexts as the API server does.

pub(crate) mod app_armor;
pub(super) mod seccomp;

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, SecurityContext};
use serde_json::{Value, json};

use super::{format::is_sysctl, path::Path, problems::Problems, spec::Pod, windows};
use crate::kubernetes::Gates;

/// Largest UID and GID.
const LARGEST_ID: i64 = i32::MAX as i64;

pub(super) fn pod(spec: &PodSpec, gates: &Gates, path: &Path<'_>, problems: &mut Problems) {
    let Some(context) = &spec.security_context else { return };
    let ids = [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
    self::ids(&ids, path, problems);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        problems.within(&path.field("supplementalGroups").index(index), *group, 0, LARGEST_ID);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        problems.invalid(&path.field("shareProcessNamespace"), true, detail);
    }
    sysctls(context, spec, &path.field("sysctls"), problems);
    let policies = ["Always", "OnRootMismatch"];
    let policy = context.fs_group_change_policy.as_deref();
    problems.one_of_if_set(&path.field("fsGroupChangePolicy"), policy, &policies);
    seccomp::profile(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), problems);
    windows::options(context.windows_options.as_ref(), &path.field("windowsOptions"), problems);
    app_armor::profile(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), problems);
    let policy = context.supplemental_groups_policy.as_deref();
    problems.one_of_if_set(&path.field("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    let policies = if gates.se_linux_mount { &["MountOption", "Recursive"][..] } else { &["Recursive"][..] };
    let policy = context.se_linux_change_policy.as_deref();
    problems.one_of_if_set(&path.field("seLinuxChangePolicy"), policy, policies);
}

fn ids(ids: &[(&str, Option<i64>)], path: &Path<'_>, problems: &mut Problems) {
    for (field, id) in ids {
        if let Some(id) = id {
            problems.within(&path.field(field), *id, 0, LARGEST_ID);
        }
    }
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let mut names = std::collections::BTreeSet::new();
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = path.index(index);
        let path = path.field("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            problems.required(&path, "");
        } else if !is_sysctl(name) {
            let regex = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            problems.invalid(&path, name, format_args!("must have at most 253 characters and match regex {regex}"));
        } else if names.contains(name) {
            problems.duplicate(&path, name);
        }
        match namespace(name) {
            Some("net") if spec.host_network == Some(true) => {
                problems.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
            }
            Some("ipc") if spec.host_ipc == Some(true) => {
                problems.invalid(&path, name, "may not be specified when 'hostIPC' is true");
            }
            _ => {}
        }
        names.insert(name);
    }
}

/// Returns the namespace that a sysctl belongs to. In `a/b.c` the slashes separate, in `a.b/c` the dots.
fn namespace(name: &str) -> Option<&'static str> {
    let is_slashed = name.find(['.', '/']).is_some_and(|first| name.as_bytes()[first] == b'/');
    let swapped = |char: char| match char {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let name: String = if is_slashed { name.chars().map(swapped).collect() } else { name.to_owned() };
    match name.as_str() {
        "kernel.sem" => Some("ipc"),
        name if ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix)) => Some("ipc"),
        name if name.starts_with("net.") => Some("net"),
        _ => None,
    }
}

pub(super) fn container(context: Option<&SecurityContext>, pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let Some(context) = context else { return };
    ids(&[("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)], path, problems);
    if let Some(mount) = context.proc_mount.as_deref() {
        let field = path.field("procMount");
        problems.one_of_if_set(&field, Some(mount), &["Default", "Unmasked"]);
        if pod.uses_host_users() && mount == "Unmasked" {
            problems.invalid(&field, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp::profile(context.seccomp_profile.as_ref(), &path.field("seccompProfile"), problems);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            problems.invalid(path, InGo(context), detail);
        }
        let added = context.capabilities.iter().flat_map(|it| it.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            problems.invalid(path, InGo(context), detail);
        }
    }
    windows::options(context.windows_options.as_ref(), &path.field("windowsOptions"), problems);
    app_armor::profile(context.app_armor_profile.as_ref(), &path.field("appArmorProfile"), problems);
}

/// Security context as the server shows it: its own structure, with Go's names.
struct InGo<'a>(&'a SecurityContext);

impl From<InGo<'_>> for super::problems::Shown {
    fn from(InGo(context): InGo<'_>) -> Self {
        let list = |list: &Option<Vec<String>>| json!(list);
        // A text that is not a pointer in Go is always present.
        let text = |text: &Option<String>| json!(text.as_deref().unwrap_or_default());
        let or_null = |fields: Option<Vec<(&str, Value)>>| fields.map_or_else(|| "null".to_owned(), |it| object(&it));
        let capabilities =
            context.capabilities.as_ref().map(|it| vec![("Add", list(&it.add)), ("Drop", list(&it.drop))]);
        let se_linux = context.se_linux_options.as_ref().map(|it| {
            vec![
                ("User", text(&it.user)),
                ("Role", text(&it.role)),
                ("Type", text(&it.type_)),
                ("Level", text(&it.level)),
            ]
        });
        let windows = context.windows_options.as_ref().map(|it| {
            vec![
                ("GMSACredentialSpecName", json!(it.gmsa_credential_spec_name)),
                ("GMSACredentialSpec", json!(it.gmsa_credential_spec)),
                ("RunAsUserName", json!(it.run_as_user_name)),
                ("HostProcess", json!(it.host_process)),
            ]
        });
        let profile =
            |kind: &str, file: &Option<String>| vec![("Type", json!(kind)), ("LocalhostProfile", json!(file))];
        let seccomp = context.seccomp_profile.as_ref().map(|it| profile(&it.type_, &it.localhost_profile));
        let app_armor = context.app_armor_profile.as_ref().map(|it| profile(&it.type_, &it.localhost_profile));
        let fields = [
            ("Capabilities", or_null(capabilities)),
            ("Privileged", json!(context.privileged).to_string()),
            ("SELinuxOptions", or_null(se_linux)),
            ("WindowsOptions", or_null(windows)),
            ("RunAsUser", json!(context.run_as_user).to_string()),
            ("RunAsGroup", json!(context.run_as_group).to_string()),
            ("RunAsNonRoot", json!(context.run_as_non_root).to_string()),
            ("ReadOnlyRootFilesystem", json!(context.read_only_root_filesystem).to_string()),
            ("AllowPrivilegeEscalation", json!(context.allow_privilege_escalation).to_string()),
            ("ProcMount", json!(context.proc_mount).to_string()),
            ("SeccompProfile", or_null(seccomp)),
            ("AppArmorProfile", or_null(app_armor)),
        ];
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        Self::json(format!("{{{}}}", fields.join(",")))
    }
}

fn object(fields: &[(&str, Value)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}
