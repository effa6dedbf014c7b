//! Admission by the node's security features: a pod whose security contexts need more than the node has is rejected,
//! and does not run without it. A restart of the agent on a changed node can change the result.

use std::path::Path;

use stanchion_plan::reason::{Explanation, Reason};
use stanchion_pod::{Pod, Profile};
use stanchion_untrusted::read_kernel;

/// Security features and allowed sysctls of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    pub app_armor: bool,
    pub se_linux: bool,
    /// Version of the kernel: major and minor.
    pub kernel: (u32, u32),
    /// Allowed sysctls beyond the safe ones. A `*` at the end of a name stands for any text.
    pub allowed_sysctls: Vec<String>,
}

/// Safe sysctls, which affect only the pod, with the first kernel version that isolates them (R-SEC-12).
pub(crate) const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

impl Admission {
    /// Reads the features of this node.
    pub fn of_node(allowed_sysctls: Vec<String>) -> Self {
        let has = |path: &str, begin: char| read_kernel(path).is_ok_and(|text| text.starts_with(begin));
        let release = read_kernel("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(|char: char| !char.is_ascii_digit()).filter_map(|it| it.parse().ok());
        Self {
            app_armor: has("/sys/module/apparmor/parameters/enabled", 'Y'),
            se_linux: Path::new("/sys/fs/selinux/enforce").exists(),
            kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            allowed_sysctls,
        }
    }

    /// Returns reason and message if the node cannot run a pod, in a kubelet's words where it has some.
    pub fn rejection(&self, pod: &Pod) -> Option<Explanation> {
        let mut containers = pod.containers.iter().chain(&pod.init_containers).map(|it| &it.security);
        let asks = |profile: &Option<Profile>| matches!(profile, Some(Profile::RuntimeDefault | Profile::Localhost(_)));
        if !self.app_armor && containers.clone().any(|it| asks(&it.app_armor)) {
            let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned();
            return Some(Explanation::new(Reason::AppArmor, message));
        }
        if !self.se_linux && containers.any(|it| it.se_linux.is_some()) {
            return Some(Explanation::new(
                Reason::SeLinux,
                "Cannot apply seLinuxOptions: SELinux is not enabled on the host",
            ));
        }
        let forbidden = pod.security.sysctls.iter().find(|(name, _)| !self.allows(name))?;
        Some(Explanation::new(Reason::SysctlForbidden, format!("forbidden sysctl: {:?} not allowlisted", forbidden.0)))
    }

    /// Returns whether a pod may set a sysctl (R-SEC-12).
    fn allows(&self, sysctl: &str) -> bool {
        let name = dotted(sysctl);
        let is_safe = |(safe, since): &(&str, (u32, u32))| *safe == name && self.kernel >= *since;
        let is_allowed = |allowed: &String| match dotted(allowed).strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == dotted(allowed),
        };
        SAFE.iter().any(is_safe) || self.allowed_sysctls.iter().any(is_allowed)
    }
}

/// Returns a sysctl's name with dots between its parts, where it has slashes.
pub(crate) fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|first| name.as_bytes()[first]) {
        Some(b'/') => name
            .chars()
            .map(|it| {
                if it == '/' {
                    '.'
                } else if it == '.' {
                    '/'
                } else {
                    it
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
    }

    fn said(admission: &Admission, spec: &str) -> Option<String> {
        admission.rejection(&pod(spec)).map(|Explanation { reason, message }| format!("{reason}: {message}"))
    }

    fn with_sysctl(name: &str) -> String {
        format!("{{securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}, containers: [{{name: c, image: a}}]}}")
    }

    /// Compares with the recordings `security/sysctl-safe` and `security/sysctl-unsafe` (R-ADM-6).
    #[test]
    fn safe_sysctls_are_admitted_and_others_where_the_node_allows_them() {
        let node = Admission { kernel: (6, 1), ..Admission::default() };
        assert_eq!(said(&node, &with_sysctl("net.ipv4.ip_local_port_range")), None, "R-SEC-12");
        assert_eq!(said(&node, &with_sysctl("net/ipv4/tcp_rmem")), None, "R-SEC-12");
        let refused = said(&node, &with_sysctl("net.core.somaxconn")).expect("refused");
        assert_eq!(refused, "SysctlForbidden: forbidden sysctl: \"net.core.somaxconn\" not allowlisted", "R-SEC-12");
        let old = Admission { kernel: (4, 14), ..Admission::default() };
        assert!(said(&old, &with_sysctl("net.ipv4.tcp_rmem")).is_some(), "R-SEC-12: the kernel is older");
        let allowed_sysctls = vec!["net.core.*".to_owned(), "kernel.msgmax".to_owned()];
        let open = Admission { allowed_sysctls, ..node };
        assert_eq!(said(&open, &with_sysctl("net.core.somaxconn")), None, "R-SEC-12");
        assert_eq!(said(&open, &with_sysctl("kernel.msgmax")), None);
        assert!(said(&open, &with_sysctl("kernel.msgmaximum")).is_some());
    }

    /// Compares with the recording `security/apparmor-selinux-missing` (R-ADM-7).
    #[test]
    fn what_the_node_does_not_have_is_not_left_out() {
        let spec = |security: &str| format!("{{containers: [{{name: c, image: a, securityContext: {security}}}]}}");
        let (bare, full) =
            (Admission::default(), Admission { app_armor: true, se_linux: true, ..Admission::default() });
        let profile = spec("{appArmorProfile: {type: RuntimeDefault}}");
        let expected = "AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host";
        assert_eq!(said(&bare, &profile).as_deref(), Some(expected), "R-SEC-9");
        assert_eq!(said(&full, &profile), None);
        assert_eq!(said(&bare, &spec("{appArmorProfile: {type: Unconfined}}")), None, "R-SEC-9");
        let label = spec("{seLinuxOptions: {level: 's0:c1,c2'}}");
        assert!(said(&bare, &label).is_some_and(|it| it.starts_with("SELinux: ")), "R-SEC-15");
        assert_eq!(said(&full, &label), None);
    }

    #[test]
    fn the_kernel_of_this_node_is_known() {
        assert!(Admission::of_node(Vec::new()).kernel > (2, 6));
    }
}
