//! Validates Windows options as the API server does.

use k8s_openapi::api::core::v1::{PodSpec, WindowsSecurityContextOptions};

use super::{
    format::dns_subdomain,
    path::Path,
    problems::{Problems, Typed},
    spec::{Pod, visit},
};

const NOT_FOR_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_FOR_LINUX: &str = "windows options cannot be set for a linux pod";

pub(super) fn os(pod: &Pod<'_>, path: &Path<'_>, problems: &mut Problems) {
    let Some(os) = &pod.spec.os else { return };
    match os.name.as_str() {
        "" => problems.required(&path.field("os").field("name"), ""),
        "linux" => linux(pod.spec, path, problems),
        "windows" => windows(pod.spec, path, problems),
        other => problems.unsupported(&path.field("os"), other, &["linux", "windows"]),
    }
}

fn linux(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        problems.forbidden(&path.field("securityContext").field("windowsOptions"), NOT_FOR_LINUX);
    }
    visit(spec, &mut |_, context, path| {
        if context.is_some_and(|context| context.windows_options.is_some()) {
            problems.forbidden(&path.field("securityContext").field("windowsOptions"), NOT_FOR_LINUX);
        }
    });
}

fn windows(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let context = spec.security_context.clone().unwrap_or_default();
    let of_context = path.field("securityContext");
    let is_set = [
        (&of_context, "appArmorProfile", context.app_armor_profile.is_some()),
        (&of_context, "seLinuxOptions", context.se_linux_options.is_some()),
        (path, "hostUsers", spec.host_users.is_some()),
        (path, "hostPID", spec.host_pid == Some(true)),
        (path, "hostIPC", spec.host_ipc == Some(true)),
        (&of_context, "seccompProfile", context.seccomp_profile.is_some()),
        (&of_context, "fsGroup", context.fs_group.is_some()),
        (&of_context, "fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
        (&of_context, "sysctls", context.sysctls.is_some()),
        (path, "shareProcessNamespace", spec.share_process_namespace.is_some()),
        (&of_context, "runAsUser", context.run_as_user.is_some()),
        (&of_context, "runAsGroup", context.run_as_group.is_some()),
        (&of_context, "supplementalGroups", context.supplemental_groups.is_some()),
        (&of_context, "supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
        (&of_context, "seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
    ];
    for (path, field, _) in is_set.into_iter().filter(|(_, _, is_set)| *is_set) {
        problems.forbidden(&path.field(field), NOT_FOR_WINDOWS);
    }
    visit(spec, &mut |_, context, path| {
        let Some(context) = context else { return };
        let path = path.field("securityContext");
        let is_set = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ];
        for (field, _) in is_set.into_iter().filter(|(_, is_set)| *is_set) {
            problems.forbidden(&path.field(field), NOT_FOR_WINDOWS);
        }
    });
}

/// Checks `hostProcess`: all containers of a pod have it or none, and it needs the host's network.
pub(super) fn host_process(spec: &PodSpec, path: &Path<'_>, problems: &mut Problems) {
    let host_process = |options: Option<&WindowsSecurityContextOptions>| options.and_then(|it| it.host_process);
    let of_pod = host_process(spec.security_context.as_ref().and_then(|it| it.windows_options.as_ref()));
    let (mut all, mut on_host) = (0, 0);
    visit(spec, &mut |_, context, path| {
        let own = host_process(context.and_then(|context| context.windows_options.as_ref()));
        all += 1;
        on_host += usize::from(own.or(of_pod) == Some(true));
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.field("securityContext");
            let path = path.field("windowsOptions");
            let detail = format_args!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            problems.invalid(&path.field("hostProcess"), own, detail);
        }
    });
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        problems.invalid(path, "", detail);
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        problems.invalid(&path.field("hostNetwork"), false, detail);
    }
}

pub(super) fn options(options: Option<&WindowsSecurityContextOptions>, path: &Path<'_>, problems: &mut Problems) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        problems.typed_format(&path.field("gmsaCredentialSpecName"), name, dns_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let path = path.field("gmsaCredentialSpec");
        match spec.len() {
            0 => problems.invalid(&path, "", "gmsaCredentialSpec cannot be an empty string"),
            1..=65536 => {}
            _ => problems.invalid(&path, Typed(spec), "gmsaCredentialSpec size must be under 64 KiB"),
        }
    }
    if let Some(name) = &options.run_as_user_name {
        problems.typed_format(&path.field("runAsUserName"), name, user_name(name));
    }
}

/// Checks a user name, `[domain\]user`.
fn user_name(name: &str) -> Vec<String> {
    let mut objections: Vec<&str> = Vec::new();
    let parts: Vec<_> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        _ if name.is_empty() => return vec!["runAsUserName cannot be an empty string".to_owned()],
        _ if name.bytes().any(|byte| byte.is_ascii_control()) => {
            return vec!["runAsUserName cannot contain control characters".to_owned()];
        }
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".to_owned()],
    };
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            objections.push("runAsUserName's Domain length must be under 256 characters");
        }
        if !is_net_bios(domain) && !is_dns(domain) {
            objections.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
        }
    }
    match user.len() {
        0 => objections.push("runAsUserName's User cannot be empty"),
        1..=104 => {}
        _ => objections.push("runAsUserName's User length must not be longer than 104 characters"),
    }
    if !user.is_empty() && user.bytes().all(|byte| matches!(byte, b'.' | b' ')) {
        objections.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        objections.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    objections.into_iter().map(str::to_owned).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let is_allowed = |char: char| !matches!(char, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && domain.chars().all(is_allowed)
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}
