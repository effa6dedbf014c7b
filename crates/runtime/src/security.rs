//! Security settings of a container, in the terms of CRI's `LinuxContainerSecurityContext`.

use serde::{Deserialize, Serialize};

use crate::is_default;

/// User, capabilities and confinement of a container. The default is a container without any security settings, under
/// the runtime's own profiles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// UID; `None` is the image's user, else root.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<u32>,
    /// GID; `None` is the group that the image gives the user, else 0.
    #[serde(skip_serializing_if = "is_default")]
    pub group: Option<u32>,
    /// Supplemental groups, beside those that the image's `/etc/group` gives the user.
    #[serde(skip_serializing_if = "is_default")]
    pub groups: Vec<u32>,
    /// `true`: the groups of the image's `/etc/group` are left out (`supplementalGroupsPolicy: Strict`).
    #[serde(skip_serializing_if = "is_default")]
    pub strict_groups: bool,
    /// `true`: the container gets all capabilities and devices, no masked paths, and no seccomp and AppArmor profiles.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Capabilities added to the runtime's default set, upper case without `CAP_`; `ALL` is every one.
    #[serde(skip_serializing_if = "is_default")]
    pub add_capabilities: Vec<String>,
    /// Capabilities removed from the set. `ALL` is every one except those that are added by name.
    #[serde(skip_serializing_if = "is_default")]
    pub drop_capabilities: Vec<String>,
    /// `true`: programs cannot gain privileges beyond their parent's (`no_new_privs`, prctl(2)).
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    /// `true`: the root file system is read-only; mounts can be writable.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_root: bool,
    /// `true`: `/proc` and `/sys` are unmasked, and nothing below `/proc` is read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub unmasked_proc: bool,
    /// Seccomp profile. `Localhost` is the path of a profile on the node.
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Profile,
    /// AppArmor profile, on nodes with AppArmor. `Localhost` is the name of a loaded profile.
    #[serde(skip_serializing_if = "is_default")]
    pub app_armor: Profile,
    /// SELinux context, on nodes with SELinux.
    #[serde(skip_serializing_if = "is_default")]
    pub se_linux: Option<SeLinux>,
}

/// Profile that confines a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Profile {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    /// No profile.
    Unconfined,
    /// A profile of the node.
    Localhost {
        /// Path or name of the profile.
        profile: String,
    },
}

/// Parts of an SELinux context; the runtime chooses the empty ones.
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
    /// Returns the context for a container's processes.
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

    /// Returns the context for files that the container may write.
    #[must_use]
    pub fn of_files(&self) -> String {
        format!("{}:object_r:container_file_t:{}", or(&self.user, "system_u"), or(&self.level, "s0"))
    }
}

fn or<'a>(part: &'a str, usual: &'a str) -> &'a str {
    if part.is_empty() { usual } else { part }
}

/// Linux capabilities in the order of their numbers, without `CAP_`, as [`Security`] names them (capabilities(7)).
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
