//! Fields whose zero differs from no value. Kubernetes' Go types have pointers there, or a rule asks whether a list is
//! present; everywhere else `""`, `0`, `false` and `[]` are no value, and a default takes their place. The wire type
//! cannot tell: it has an `Option` for both.

/// Structures with such fields, sorted for the binary search.
const FIELDS: &[(&str, &[&str])] = &[
    ("AppArmorProfile", &["localhostProfile"]),
    ("AzureDiskVolumeSource", &["cachingMode", "fsType", "kind", "readOnly"]),
    ("CSIVolumeSource", &["fsType", "readOnly"]),
    ("Capabilities", &["add", "drop"]),
    ("ClusterTrustBundleProjection", &["name", "optional", "signerName"]),
    ("ConfigMapEnvSource", &["optional"]),
    ("ConfigMapKeySelector", &["optional"]),
    ("ConfigMapProjection", &["optional"]),
    ("ConfigMapVolumeSource", &["defaultMode", "optional"]),
    ("Container", &["restartPolicy"]),
    ("DownwardAPIVolumeFile", &["mode"]),
    ("DownwardAPIVolumeSource", &["defaultMode"]),
    ("EphemeralContainer", &["ports", "resizePolicy", "restartPolicy", "restartPolicyRules"]),
    ("FCVolumeSource", &["lun"]),
    ("FileKeySelector", &["optional"]),
    ("GRPCAction", &["service"]),
    ("HostPathVolumeSource", &["type"]),
    ("ISCSIVolumeSource", &["initiatorName"]),
    ("KeyToPath", &["mode"]),
    ("Lifecycle", &["stopSignal"]),
    ("ObjectMeta", &["deletionGracePeriodSeconds", "finalizers", "managedFields", "ownerReferences"]),
    ("OwnerReference", &["blockOwnerDeletion", "controller"]),
    ("PersistentVolumeClaimSpec", &["storageClassName", "volumeAttributesClassName", "volumeMode"]),
    ("PodCertificateProjection", &["maxExpirationSeconds"]),
    ("PodDNSConfigOption", &["value"]),
    ("PodResourceClaim", &["resourceClaimName", "resourceClaimTemplateName"]),
    ("PodSchedulingGroup", &["podGroupName"]),
    (
        "PodSecurityContext",
        &[
            "fsGroup",
            "fsGroupChangePolicy",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seLinuxChangePolicy",
            "supplementalGroups",
            "supplementalGroupsPolicy",
            "sysctls",
        ],
    ),
    (
        "PodSpec",
        &[
            "activeDeadlineSeconds",
            "automountServiceAccountToken",
            "enableServiceLinks",
            "hostUsers",
            "hostnameOverride",
            "preemptionPolicy",
            "priority",
            "runtimeClassName",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "terminationGracePeriodSeconds",
        ],
    ),
    ("Probe", &["terminationGracePeriodSeconds"]),
    ("ProjectedVolumeSource", &["defaultMode"]),
    ("ResourceRequirements", &["claims", "limits", "requests"]),
    ("SeccompProfile", &["localhostProfile"]),
    ("SecretEnvSource", &["optional"]),
    ("SecretKeySelector", &["optional"]),
    ("SecretProjection", &["optional"]),
    ("SecretVolumeSource", &["defaultMode", "optional"]),
    (
        "SecurityContext",
        &[
            "allowPrivilegeEscalation",
            "privileged",
            "procMount",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
        ],
    ),
    ("ServiceAccountTokenProjection", &["expirationSeconds"]),
    ("Toleration", &["tolerationSeconds"]),
    ("TopologySpreadConstraint", &["minDomains", "nodeAffinityPolicy", "nodeTaintsPolicy"]),
    ("TypedLocalObjectReference", &["apiGroup"]),
    ("TypedObjectReference", &["apiGroup", "namespace"]),
    ("VolumeMount", &["mountPropagation", "recursiveReadOnly"]),
    (
        "WindowsSecurityContextOptions",
        &["gmsaCredentialSpec", "gmsaCredentialSpecName", "hostProcess", "runAsUserName"],
    ),
];

/// Returns whether a zero in this field differs from no value.
pub(super) fn has(owner: &str, field: &str) -> bool {
    let found = FIELDS.binary_search_by(|(name, _)| (*name).cmp(owner));
    found.is_ok_and(|index| FIELDS[index].1.contains(&field))
}
