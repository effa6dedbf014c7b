//! Which fields this agent executes, which it refuses, and which have no effect on a node. One table; what is in no row
//! is unknown to Kubernetes and is reported as a typo.

use serde_json::{Map, Value};

use crate::{Problem, names::join};

/// What becomes of a field.
#[derive(Clone, Copy)]
enum Support {
    /// Done as it says, with the fields below it in rows of their own.
    Executed,
    /// Done as it says, whatever is below it.
    Whole,
    /// Accepted; means nothing on a lone node.
    NoEffect,
    /// Not done yet; accepted only if it says what happens anyway.
    Only(&'static [&'static str]),
    /// Not done yet.
    Refused,
}

use Support::{Executed, NoEffect, Only, Refused, Whole};

/// A level of the manifest, by path with `[]` for any index, and its fields.
const LEVELS: [(&str, &[(&str, Support)]); 10] = [
    ("", &[("apiVersion", Whole), ("kind", Whole), ("metadata", Executed), ("spec", Executed), ("status", Whole)]),
    (
        "metadata",
        &[
            ("name", Whole),
            ("namespace", Whole),
            ("labels", Whole),
            ("annotations", Whole),
            ("uid", Whole),
            ("creationTimestamp", Whole),
            ("deletionTimestamp", Whole),
            ("deletionGracePeriodSeconds", Whole),
            ("resourceVersion", Whole),
            ("managedFields", Whole),
            ("selfLink", NoEffect),
            ("generation", NoEffect),
            ("generateName", NoEffect),
            ("ownerReferences", NoEffect),
            ("finalizers", NoEffect),
        ],
    ),
    (
        "spec",
        &[
            ("containers", Executed),
            ("volumes", Executed),
            ("restartPolicy", Whole),
            ("terminationGracePeriodSeconds", Whole),
            ("hostNetwork", Whole),
            ("hostname", Whole),
            ("runtimeClassName", Whole),
            ("nodeName", Whole),
            ("affinity", NoEffect),
            ("tolerations", NoEffect),
            ("nodeSelector", NoEffect),
            ("priority", NoEffect),
            ("priorityClassName", NoEffect),
            ("preemptionPolicy", NoEffect),
            ("schedulerName", NoEffect),
            ("enableServiceLinks", NoEffect),
            ("automountServiceAccountToken", NoEffect),
            ("topologySpreadConstraints", NoEffect),
            ("dnsPolicy", Only(&["\"ClusterFirst\"", "\"Default\""])),
            ("hostPID", Only(&["false"])),
            ("hostIPC", Only(&["false"])),
            ("hostUsers", Only(&["true"])),
            ("shareProcessNamespace", Only(&["false"])),
            ("setHostnameAsFQDN", Only(&["false"])),
            ("securityContext", Only(&["{}"])),
            ("os", Only(&["{\"name\":\"linux\"}"])),
            ("initContainers", Only(&["[]"])),
            ("ephemeralContainers", Only(&["[]"])),
            ("hostAliases", Only(&["[]"])),
            ("imagePullSecrets", Only(&["[]"])),
            ("readinessGates", Only(&["[]"])),
            ("schedulingGates", Only(&["[]"])),
            ("resourceClaims", Only(&["[]"])),
            ("activeDeadlineSeconds", Refused),
            ("dnsConfig", Refused),
            ("hostnameOverride", Refused),
            ("overhead", Refused),
            ("resources", Refused),
            ("serviceAccount", Refused),
            ("serviceAccountName", Refused),
            ("subdomain", Refused),
            ("workloadRef", Refused),
        ],
    ),
    (
        "spec.containers[]",
        &[
            ("name", Whole),
            ("image", Whole),
            ("command", Whole),
            ("args", Whole),
            ("env", Executed),
            ("workingDir", Whole),
            ("ports", Whole),
            ("resources", Executed),
            ("volumeMounts", Executed),
            ("imagePullPolicy", Whole),
            ("terminationMessagePath", Only(&["\"/dev/termination-log\""])),
            ("terminationMessagePolicy", Only(&["\"File\""])),
            ("stdin", Only(&["false"])),
            ("stdinOnce", Only(&["false"])),
            ("tty", Only(&["false"])),
            ("securityContext", Only(&["{}"])),
            ("envFrom", Only(&["[]"])),
            ("volumeDevices", Only(&["[]"])),
            ("lifecycle", Refused),
            ("livenessProbe", Refused),
            ("readinessProbe", Refused),
            ("startupProbe", Refused),
            ("resizePolicy", NoEffect),
            ("restartPolicy", Refused),
            ("restartPolicyRules", Refused),
        ],
    ),
    ("spec.containers[].env[]", &[("name", Whole), ("value", Whole), ("valueFrom", Refused)]),
    ("spec.containers[].resources", &[("limits", Executed), ("requests", Executed), ("claims", Only(&["[]"]))]),
    (
        "spec.containers[].volumeMounts[]",
        &[
            ("name", Whole),
            ("mountPath", Whole),
            ("readOnly", Whole),
            ("mountPropagation", Only(&["\"None\""])),
            ("recursiveReadOnly", Only(&["\"Disabled\""])),
            ("subPath", Only(&["\"\""])),
            ("subPathExpr", Only(&["\"\""])),
        ],
    ),
    (
        "spec.volumes[]",
        &[
            ("name", Whole),
            ("hostPath", Executed),
            ("emptyDir", Executed),
            ("awsElasticBlockStore", Refused),
            ("azureDisk", Refused),
            ("azureFile", Refused),
            ("cephfs", Refused),
            ("cinder", Refused),
            ("configMap", Refused),
            ("csi", Refused),
            ("downwardAPI", Refused),
            ("ephemeral", Refused),
            ("fc", Refused),
            ("flexVolume", Refused),
            ("flocker", Refused),
            ("gcePersistentDisk", Refused),
            ("gitRepo", Refused),
            ("glusterfs", Refused),
            ("image", Refused),
            ("iscsi", Refused),
            ("nfs", Refused),
            ("persistentVolumeClaim", Refused),
            ("photonPersistentDisk", Refused),
            ("portworxVolume", Refused),
            ("projected", Refused),
            ("quobyte", Refused),
            ("rbd", Refused),
            ("scaleIO", Refused),
            ("secret", Refused),
            ("storageos", Refused),
            ("vsphereVolume", Refused),
        ],
    ),
    ("spec.volumes[].hostPath", &[("path", Whole), ("type", Whole)]),
    ("spec.volumes[].emptyDir", &[("medium", Whole), ("sizeLimit", Whole)]),
];

/// Resources that containers can ask for now.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Refuses what is not done, and warns of what means nothing here.
pub(crate) fn check(document: &Map<String, Value>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    fields(document, "", problems, warnings);
}

fn level(value: &Value, path: &str, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                level(item, &format!("{path}[{index}]"), problems, warnings);
            }
        }
        Value::Object(object) => fields(object, path, problems, warnings),
        _ => {}
    }
}

fn fields(object: &Map<String, Value>, path: &str, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let at = generic(path);
    let rows = LEVELS.iter().find(|(known, _)| *known == at).map(|(_, rows)| *rows);
    for (name, value) in object {
        let field = join(path, name);
        match rows.and_then(|rows| rows.iter().find(|row| row.0 == name)).map(|row| row.1) {
            Some(Executed) => level(value, &field, problems, warnings),
            Some(NoEffect) => warnings.push(problem(field, "is accepted and has no effect on a lone node".into())),
            Some(Refused) => problems.push(refused(field)),
            Some(Only(allowed)) if !allowed.contains(&value.to_string().as_str()) => {
                problems.push(refused_value(field, value, allowed));
            }
            None if at.starts_with("spec.containers[].resources.") && !RESOURCES.contains(&name.as_str()) => {
                problems.push(refused(field));
            }
            Some(Whole | Only(_)) | None => {}
        }
    }
}

fn refused(field: String) -> Problem {
    problem(field, "is not supported yet; remove it to run the pod without it".to_owned())
}

fn refused_value(field: String, value: &Value, allowed: &[&str]) -> Problem {
    let message = format!("{value} is not supported yet; only {} is, as if it were left out", allowed.join(" or "));
    problem(field, message)
}

fn problem(field: String, message: String) -> Problem {
    Problem { field, message, ..Problem::default() }
}

/// `spec.containers[3].env[0]` → `spec.containers[].env[]`.
fn generic(path: &str) -> String {
    path.chars().filter(|char| !char.is_ascii_digit()).collect()
}
