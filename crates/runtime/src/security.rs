//! What a container may do on its node, in the words of CRI's `LinuxContainerSecurityContext`.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// Who a container runs as, and what the kernel lets it do. The default is what a container gets that asks for nothing,
/// under the runtime's own profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// UID; `None` is the image's user, else root.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<u32>,
    /// GID; `None` is the group that the image gives the user, else 0.
    #[serde(skip_serializing_if = "is_default")]
    pub group: Option<u32>,
    /// Further groups, beside those that the image's `/etc/group` gives the user.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<u32>,
    /// The image's `/etc/group` gives the user none (`supplementalGroupsPolicy: Strict`).
    #[serde(skip_serializing_if = "is_default")]
    pub strict_groups: bool,
    /// All capabilities and devices, nothing masked, no seccomp and AppArmor profiles.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Capabilities beyond the runtime's own set, upper case without `CAP_`; `ALL` is every one.
    #[serde(skip_serializing_if = "is_default")]
    pub add_capabilities: Vec<String>,
    /// Capabilities less than that. `ALL` is every one but those that are added by name.
    #[serde(skip_serializing_if = "is_default")]
    pub drop_capabilities: Vec<String>,
    /// No program can gain more than its parent has (`no_new_privs`, prctl(2)).
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// The container's own files cannot be written; its mounts can.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_root: bool,
    /// `/proc` and `/sys` as the kernel shows them: nothing masked, nothing read-only below `/proc`.
    #[serde(skip_serializing_if = "is_default")]
    pub unmasked_proc: bool,
    /// The system calls it may make. `Localhost` is the path of a profile on the node.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Profile,
    /// Its AppArmor profile, where the node has AppArmor. `Localhost` is the name of a loaded profile.
    #[serde(skip_serializing_if = "is_default")]
    pub app_armor: Profile,
    /// Its SELinux context, where the node has SELinux.
    #[serde(skip_serializing_if = "is_default")]
    pub se_linux: Option<SeLinux>,
}

/// Which profile of the node's confines a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Profile {
    /// The runtime's own.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One of the node's.
    Localhost {
        /// Which: a path or a name.
        profile: String,
    },
}

/// Parts of an SELinux context; an empty one is the runtime's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "SELinux's own names")]
pub struct SeLinux {
    pub user: String,
    pub role: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub level: String,
}

impl SeLinux {
    /// The context of a container's processes.
    #[must_use]
    pub fn of_processes(&self) -> String {
        let [user, role, kind, level] = [
            or(&self.user, "system_u"),
            or(&self.role, "system_r"),
            or(&self.kind, "container_t"),
            or(&self.level, "s0"),
        ];
        format!("{user}:{role}:{kind}:{level}")
    }

    /// The context of the files that they may write.
    #[must_use]
    pub fn of_files(&self) -> String {
        format!("{}:object_r:container_file_t:{}", or(&self.user, "system_u"), or(&self.level, "s0"))
    }
}

fn or<'a>(part: &'a str, usual: &'a str) -> &'a str {
    if part.is_empty() { usual } else { part }
}

/// Capabilities of Linux in the order of their numbers, without `CAP_`, as [`Security`] names them (capabilities(7)).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

#[cfg(test)]
mod tests {
    use super::SeLinux;

    // R-SEC-15.
    #[test]
    fn parts_of_a_context_that_are_not_said_are_the_usual_ones() {
        let usual = SeLinux::default();
        assert_eq!(usual.of_processes(), "system_u:system_r:container_t:s0");
        assert_eq!(usual.of_files(), "system_u:object_r:container_file_t:s0");
        let own = SeLinux { kind: "spc_t".to_owned(), level: "s0:c1,c2".to_owned(), ..SeLinux::default() };
        assert_eq!(own.of_processes(), "system_u:system_r:spc_t:s0:c1,c2");
        assert_eq!(own.of_files(), "system_u:object_r:container_file_t:s0:c1,c2");
    }
}
