//! Security settings of a pod and its containers.

/// Security settings that all containers of a pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSecurity {
    /// `supplementalGroups`, then `fsGroup` (R-SEC-10).
    pub groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: groups of the image are ignored.
    pub strict_groups: bool,
    /// `sysctls`: names and values.
    pub sysctls: Vec<(String, String)>,
    /// `hostPID`: containers see the node's processes.
    pub host_pid: bool,
    /// `shareProcessNamespace`: containers see each other's processes.
    pub share_processes: bool,
    /// `hostIPC`: containers use the node's IPC namespace.
    pub host_ipc: bool,
    /// `hostUsers: false`: UIDs and GIDs of the pod are none of the node's.
    pub own_users: bool,
}

/// Security context in force for a container: its own values, else the pod's (R-SEC-1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `runAsUser`; `None` is the image's.
    pub user: Option<u32>,
    /// `runAsGroup`; `None` is the image's.
    pub group: Option<u32>,
    /// `runAsNonRoot`
    pub non_root: bool,
    /// `privileged`
    pub privileged: bool,
    /// `capabilities.add`, upper case without `CAP_`.
    pub add_capabilities: Vec<String>,
    /// `capabilities.drop`, likewise.
    pub drop_capabilities: Vec<String>,
    /// `allowPrivilegeEscalation: false`
    pub no_new_privileges: bool,
    /// `readOnlyRootFilesystem`
    pub read_only_root: bool,
    /// `procMount: Unmasked`
    pub unmasked_proc: bool,
    /// `seccompProfile`; `None` is the node's default (R-SEC-8).
    pub seccomp: Option<Profile>,
    /// `appArmorProfile`; `None` is the runtime's own where the node has AppArmor (R-SEC-9).
    pub app_armor: Option<Profile>,
    /// `seLinuxOptions`
    pub se_linux: Option<SeLinux>,
}

/// Seccomp or AppArmor profile of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' own names")]
pub enum Profile {
    RuntimeDefault,
    Unconfined,
    /// File below the agent's directory of profiles (seccomp), or name of a loaded profile (AppArmor).
    Localhost(String),
}

/// Parts of an SELinux context; an empty one is the runtime's choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "SELinux's own names")]
pub struct SeLinux {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}
