//! Compares the table of supported fields with the schema, the code and the documentation.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use serde_json::json;

use super::*;
use crate::{
    decode,
    model::Pod,
    schema::{self, Field, Shape},
};

/// Returns every field of a Pod, with its shape's name.
fn fields() -> Vec<(String, String)> {
    let mut fields = Vec::new();
    schema::walk(&mut |path, field| fields.push((path.to_owned(), shape_name(&field.shape))));
    fields
}

fn shape_name(shape: &Shape) -> String {
    match shape {
        Shape::Struct(_) => "mapping".to_owned(),
        Shape::List(inside) => format!("list of {}", shape_name(inside)),
        Shape::Map(inside) => format!("{} by name", shape_name(inside)),
        Shape::Text => "text".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Int32 | Shape::Int64 => "number".to_owned(),
        Shape::Quantity => "quantity".to_owned(),
        Shape::IntOrString => "number or text".to_owned(),
        Shape::Time => "time".to_owned(),
        Shape::Any => "anything".to_owned(),
    }
}

/// Returns the field above, if there is one.
fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('.').map(|(parent, _)| parent.trim_end_matches("[]"))
}

/// Returns the row that decides on a field: its own, or that of the nearest field around it.
fn deciding(path: &str) -> Option<(&str, Support)> {
    let mut path = Some(path);
    while let Some(at) = path {
        match row(at) {
            Some(support) => return Some((at, support)),
            None => path = parent(at),
        }
    }
    None
}

#[test]
fn every_field_has_a_row_and_every_row_a_field() {
    let fields = fields();
    let known: BTreeSet<_> = fields.iter().map(|(path, _)| path.as_str()).collect();
    for path in &known {
        let above = parent(path).and_then(deciding).map(|(_, support)| support);
        match (row(path), above) {
            (Some(_), None | Some(Executed)) => {}
            (Some(_), Some(above)) => panic!("{path} has a row that its parent's {above:?} leaves no say"),
            (None, None | Some(Executed)) => panic!("{path} has no row"),
            (None, Some(_)) => {}
        }
    }
    let paths: Vec<_> = ROWS.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths.len(), TABLE.len(), "one row for each field");
    for path in paths {
        assert!(known.contains(path), "{path} is no field of a Pod");
    }
}

#[test]
fn the_schema_is_the_servers() {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/apiserver-1.36/fields.txt");
    let recorded = fs::read_to_string(recorded).expect("the list of fields can be read");
    let recorded: BTreeSet<_> = recorded.lines().filter_map(|line| line.split('\t').next()).collect();
    let fields = fields();
    let is_recorded = |path: &&str| !path.starts_with("status");
    let ours: BTreeSet<_> = fields.iter().map(|(path, _)| path.as_str()).filter(is_recorded).collect();
    assert!(recorded.len() > 1000, "{} fields are recorded", recorded.len());
    assert_eq!(
        ours.difference(&recorded).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "fields that the server does not have"
    );
    assert_eq!(
        recorded.difference(&ours).collect::<Vec<_>>(),
        Vec::<&&str>::new(),
        "fields that the schema does not have"
    );
}

/// Returns a value of that shape that is not its zero, with every field below it.
fn sample(shape: &Shape) -> Value {
    match shape {
        Shape::Struct(fields) => {
            fields.iter().map(|Field { name, shape, .. }| ((*name).to_owned(), sample(shape))).collect()
        }
        Shape::List(inside) => json!([sample(inside)]),
        Shape::Map(inside) => json!({ "cpu": sample(inside) }),
        Shape::Text => json!("x"),
        Shape::Bool => json!(true),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => json!(7),
        Shape::Quantity => json!("7"),
        Shape::Time => json!("2024-01-02T03:04:05Z"),
        Shape::Any => json!({}),
    }
}

/// Returns a document in which only that field is set.
fn only(path: &str, value: Value) -> Map<String, Value> {
    let (step, rest) = path.split_once('.').unwrap_or((path, ""));
    let inside = if rest.is_empty() { value } else { Value::Object(only(rest, value)) };
    match step.strip_suffix("[]") {
        Some(name) => Map::from_iter([(name.to_owned(), json!([inside]))]),
        None => Map::from_iter([(step.to_owned(), inside)]),
    }
}

fn said(path: &str, value: Value) -> (Vec<Problem>, Vec<Problem>) {
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    check(Some(&only(path, value)), &mut problems, &mut warnings);
    (problems.into_list("problems"), warnings.into_list("warnings"))
}

// R-REJ-1, R-REJ-3.
#[test]
fn the_code_does_what_the_rows_say() {
    schema::walk(&mut |path, field| {
        let (at, support) = deciding(path).unwrap_or_else(|| panic!("{path} has no row"));
        let sample = sample(&field.shape);
        let is_leaf = !matches!(&sample, Value::Object(_) | Value::Array(_));
        let (problems, warnings) = said(path, sample);
        let concrete = at.replace("[]", "[0]");
        let names_it = |list: &[Problem]| list.iter().any(|problem| problem.field == concrete);
        match support {
            Executed if is_leaf => {
                assert!(problems.is_empty() && warnings.is_empty(), "{path}: {problems:?} {warnings:?}");
            }
            Executed => assert!(!names_it(&problems) && !names_it(&warnings), "{path}: {problems:?} {warnings:?}"),
            Keys(known) => {
                assert!(known.contains(&"cpu") && problems.is_empty(), "{path}: {problems:?}");
                let (problems, _) = said(path, json!({ "cpu": "1", "example.com/dongle": "1" }));
                assert_eq!(problems.len(), 1, "{path}: {problems:?}");
                assert_eq!(problems[0].field, format!("{concrete}.example.com/dongle"));
            }
            Only(allowed) => {
                for value in allowed.iter().filter(|_| at == path) {
                    let value = serde_json::from_str(value).expect("rows have JSON");
                    assert_eq!(said(path, value), (Vec::new(), Vec::new()), "{path}");
                }
                let other = if allowed.contains(&"true") { json!(false) } else { json!(true) };
                assert!(names_it(&said(at, other).0), "{path} is refused with another value");
            }
            NoEffect(why) => {
                assert!(
                    names_it(&warnings) && problems.is_empty() && !why.is_empty(),
                    "{path}: {problems:?} {warnings:?}"
                );
            }
            Quiet(_) => assert!(problems.is_empty() && warnings.is_empty(), "{path}: {problems:?} {warnings:?}"),
            Refused(why, way_out) => {
                assert!(names_it(&problems) && !why.is_empty() && !way_out.is_empty(), "{path}: {problems:?}");
            }
        }
    });
}

/// Executed fields, each with two values that must make different pods.
const VALUES: &[(&str, &str, &str)] = &[
    ("metadata.annotations", r#"{"a": "b"}"#, r#"{"a": "c"}"#),
    ("metadata.labels", r#"{"a": "b"}"#, r#"{"a": "c"}"#),
    ("metadata.name", r#""a""#, r#""b""#),
    ("metadata.namespace", r#""a""#, r#""b""#),
    ("metadata.uid", r#""a""#, r#""b""#),
    ("spec.activeDeadlineSeconds", "5", "6"),
    ("spec.containers[].args", r#"["a"]"#, r#"["b"]"#),
    ("spec.containers[].command", r#"["a"]"#, r#"["b"]"#),
    ("spec.containers[].env[].name", r#""A""#, r#""B""#),
    ("spec.containers[].env[].value", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.key", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.name", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.configMapKeyRef.optional", "true", "false"),
    ("spec.containers[].env[].valueFrom.fieldRef.fieldPath", r#""metadata.name""#, r#""status.podIP""#),
    ("spec.containers[].env[].valueFrom.fileKeyRef.key", r#""A""#, r#""B""#),
    ("spec.containers[].env[].valueFrom.fileKeyRef.optional", "true", "false"),
    ("spec.containers[].env[].valueFrom.fileKeyRef.path", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.fileKeyRef.volumeName", r#""v""#, r#""w""#),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.containerName", r#""x""#, r#""y""#),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.divisor", r#""1""#, r#""1m""#),
    ("spec.containers[].env[].valueFrom.resourceFieldRef.resource", r#""limits.cpu""#, r#""limits.memory""#),
    ("spec.containers[].env[].valueFrom.secretKeyRef.key", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.secretKeyRef.name", r#""a""#, r#""b""#),
    ("spec.containers[].env[].valueFrom.secretKeyRef.optional", "true", "false"),
    ("spec.containers[].envFrom[].configMapRef.name", r#""a""#, r#""b""#),
    ("spec.containers[].envFrom[].configMapRef.optional", "true", "false"),
    ("spec.containers[].envFrom[].prefix", r#""A""#, r#""B""#),
    ("spec.containers[].envFrom[].secretRef.name", r#""a""#, r#""b""#),
    ("spec.containers[].envFrom[].secretRef.optional", "true", "false"),
    ("spec.containers[].image", r#""a""#, r#""b""#),
    ("spec.containers[].imagePullPolicy", r#""Always""#, r#""Never""#),
    ("spec.containers[].lifecycle.postStart.exec.command", r#"["a"]"#, r#"["b"]"#),
    ("spec.containers[].lifecycle.postStart.httpGet.host", r#""a""#, r#""b""#),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].name", r#""A""#, r#""B""#),
    ("spec.containers[].lifecycle.postStart.httpGet.httpHeaders[].value", r#""a""#, r#""b""#),
    ("spec.containers[].lifecycle.postStart.httpGet.path", r#""/a""#, r#""/b""#),
    ("spec.containers[].lifecycle.postStart.httpGet.port", "1", "2"),
    ("spec.containers[].lifecycle.postStart.httpGet.scheme", r#""HTTP""#, r#""HTTPS""#),
    ("spec.containers[].lifecycle.postStart.sleep.seconds", "1", "2"),
    ("spec.containers[].lifecycle.postStart.tcpSocket.host", r#""a""#, r#""b""#),
    ("spec.containers[].lifecycle.postStart.tcpSocket.port", "1", "2"),
    ("spec.containers[].livenessProbe.exec.command", r#"["a"]"#, r#"["b"]"#),
    ("spec.containers[].livenessProbe.failureThreshold", "1", "2"),
    ("spec.containers[].livenessProbe.grpc.port", "1", "2"),
    ("spec.containers[].livenessProbe.grpc.service", r#""a""#, r#""b""#),
    ("spec.containers[].livenessProbe.httpGet.host", r#""a""#, r#""b""#),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].name", r#""A""#, r#""B""#),
    ("spec.containers[].livenessProbe.httpGet.httpHeaders[].value", r#""a""#, r#""b""#),
    ("spec.containers[].livenessProbe.httpGet.path", r#""/a""#, r#""/b""#),
    ("spec.containers[].livenessProbe.httpGet.port", "1", "2"),
    ("spec.containers[].livenessProbe.httpGet.scheme", r#""HTTP""#, r#""HTTPS""#),
    ("spec.containers[].livenessProbe.initialDelaySeconds", "1", "2"),
    ("spec.containers[].livenessProbe.periodSeconds", "1", "2"),
    ("spec.containers[].livenessProbe.tcpSocket.host", r#""a""#, r#""b""#),
    ("spec.containers[].livenessProbe.tcpSocket.port", "1", "2"),
    ("spec.containers[].livenessProbe.terminationGracePeriodSeconds", "1", "2"),
    ("spec.containers[].livenessProbe.timeoutSeconds", "1", "2"),
    ("spec.containers[].name", r#""a""#, r#""b""#),
    ("spec.containers[].ports[].containerPort", "1", "2"),
    ("spec.containers[].ports[].hostIP", r#""10.0.0.1""#, r#""10.0.0.2""#),
    ("spec.containers[].ports[].hostPort", "1", "2"),
    ("spec.containers[].ports[].name", r#""a""#, r#""b""#),
    ("spec.containers[].ports[].protocol", r#""TCP""#, r#""UDP""#),
    ("spec.containers[].readinessProbe.successThreshold", "1", "2"),
    ("spec.containers[].resources.limits", r#"{"cpu": "1", "memory": "1"}"#, r#"{"cpu": "1", "memory": "2"}"#),
    ("spec.containers[].resources.requests", r#"{"cpu": "1", "memory": "1"}"#, r#"{"cpu": "2", "memory": "1"}"#),
    ("spec.containers[].restartPolicy", r#""Always""#, r#""Never""#),
    ("spec.containers[].restartPolicyRules[].action", r#""Restart""#, r#""RestartAllContainers""#),
    ("spec.containers[].restartPolicyRules[].exitCodes.operator", r#""In""#, r#""NotIn""#),
    ("spec.containers[].restartPolicyRules[].exitCodes.values", "[1]", "[2]"),
    ("spec.containers[].securityContext.allowPrivilegeEscalation", "true", "false"),
    ("spec.containers[].securityContext.appArmorProfile.localhostProfile", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.appArmorProfile.type", r#""RuntimeDefault""#, r#""Unconfined""#),
    ("spec.containers[].securityContext.capabilities.add", r#"["KILL"]"#, r#"["CHOWN"]"#),
    ("spec.containers[].securityContext.capabilities.drop", r#"["KILL"]"#, r#"["CHOWN"]"#),
    ("spec.containers[].securityContext.privileged", "true", "false"),
    ("spec.containers[].securityContext.procMount", r#""Default""#, r#""Unmasked""#),
    ("spec.containers[].securityContext.readOnlyRootFilesystem", "true", "false"),
    ("spec.containers[].securityContext.runAsGroup", "1", "2"),
    ("spec.containers[].securityContext.runAsNonRoot", "true", "false"),
    ("spec.containers[].securityContext.runAsUser", "1", "2"),
    ("spec.containers[].securityContext.seLinuxOptions.level", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.seLinuxOptions.role", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.seLinuxOptions.type", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.seLinuxOptions.user", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.seccompProfile.localhostProfile", r#""a""#, r#""b""#),
    ("spec.containers[].securityContext.seccompProfile.type", r#""RuntimeDefault""#, r#""Unconfined""#),
    ("spec.containers[].stdin", "true", "false"),
    ("spec.containers[].stdinOnce", "true", "false"),
    ("spec.containers[].terminationMessagePath", r#""/a""#, r#""/b""#),
    ("spec.containers[].terminationMessagePolicy", r#""File""#, r#""FallbackToLogsOnError""#),
    ("spec.containers[].tty", "true", "false"),
    ("spec.containers[].volumeMounts[].mountPath", r#""/a""#, r#""/b""#),
    ("spec.containers[].volumeMounts[].mountPropagation", r#""None""#, r#""HostToContainer""#),
    ("spec.containers[].volumeMounts[].name", r#""v""#, r#""w""#),
    ("spec.containers[].volumeMounts[].readOnly", "true", "false"),
    ("spec.containers[].volumeMounts[].recursiveReadOnly", r#""Enabled""#, r#""IfPossible""#),
    ("spec.containers[].volumeMounts[].subPath", r#""a""#, r#""b""#),
    ("spec.containers[].volumeMounts[].subPathExpr", r#""a""#, r#""b""#),
    ("spec.containers[].workingDir", r#""/a""#, r#""/b""#),
    ("spec.dnsConfig.nameservers", r#"["10.0.0.1"]"#, r#"["10.0.0.2"]"#),
    ("spec.dnsConfig.options[].name", r#""a""#, r#""b""#),
    ("spec.dnsConfig.options[].value", r#""a""#, r#""b""#),
    ("spec.dnsConfig.searches", r#"["a"]"#, r#"["b"]"#),
    ("spec.dnsPolicy", r#""Default""#, r#""None""#),
    ("spec.hostAliases[].hostnames", r#"["a"]"#, r#"["b"]"#),
    ("spec.hostAliases[].ip", r#""10.0.0.1""#, r#""10.0.0.2""#),
    ("spec.hostIPC", "true", "false"),
    ("spec.hostNetwork", "true", "false"),
    ("spec.hostPID", "true", "false"),
    ("spec.hostUsers", "true", "false"),
    ("spec.hostname", r#""a""#, r#""b""#),
    ("spec.hostnameOverride", r#""a""#, r#""b""#),
    ("spec.imagePullSecrets[].name", r#""a""#, r#""b""#),
    ("spec.overhead", r#"{"cpu": "1", "memory": "1"}"#, r#"{"cpu": "1", "memory": "2"}"#),
    ("spec.readinessGates[].conditionType", r#""example.com/a""#, r#""example.com/b""#),
    ("spec.resources.limits", r#"{"cpu": "8", "memory": "8Gi"}"#, r#"{"cpu": "8", "memory": "9Gi"}"#),
    ("spec.resources.requests", r#"{"cpu": "8", "memory": "8Gi"}"#, r#"{"cpu": "9", "memory": "8Gi"}"#),
    ("spec.restartPolicy", r#""Always""#, r#""Never""#),
    ("spec.runtimeClassName", r#""a""#, r#""b""#),
    ("spec.securityContext.appArmorProfile.localhostProfile", r#""a""#, r#""b""#),
    ("spec.securityContext.appArmorProfile.type", r#""RuntimeDefault""#, r#""Unconfined""#),
    ("spec.securityContext.fsGroup", "1", "2"),
    ("spec.securityContext.fsGroupChangePolicy", r#""Always""#, r#""OnRootMismatch""#),
    ("spec.securityContext.runAsGroup", "1", "2"),
    ("spec.securityContext.runAsNonRoot", "true", "false"),
    ("spec.securityContext.runAsUser", "1", "2"),
    ("spec.securityContext.seLinuxOptions.level", r#""a""#, r#""b""#),
    ("spec.securityContext.seLinuxOptions.role", r#""a""#, r#""b""#),
    ("spec.securityContext.seLinuxOptions.type", r#""a""#, r#""b""#),
    ("spec.securityContext.seLinuxOptions.user", r#""a""#, r#""b""#),
    ("spec.securityContext.seccompProfile.localhostProfile", r#""a""#, r#""b""#),
    ("spec.securityContext.seccompProfile.type", r#""RuntimeDefault""#, r#""Unconfined""#),
    ("spec.securityContext.supplementalGroups", "[1]", "[2]"),
    ("spec.securityContext.supplementalGroupsPolicy", r#""Merge""#, r#""Strict""#),
    ("spec.securityContext.sysctls[].name", r#""a""#, r#""b""#),
    ("spec.securityContext.sysctls[].value", r#""a""#, r#""b""#),
    ("spec.setHostnameAsFQDN", "true", "false"),
    ("spec.shareProcessNamespace", "true", "false"),
    ("spec.subdomain", r#""a""#, r#""b""#),
    ("spec.terminationGracePeriodSeconds", "5", "6"),
    ("spec.volumes[].configMap.defaultMode", "1", "2"),
    ("spec.volumes[].configMap.items[].key", r#""a""#, r#""b""#),
    ("spec.volumes[].configMap.items[].mode", "1", "2"),
    ("spec.volumes[].configMap.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].configMap.name", r#""a""#, r#""b""#),
    ("spec.volumes[].configMap.optional", "true", "false"),
    ("spec.volumes[].downwardAPI.defaultMode", "1", "2"),
    ("spec.volumes[].downwardAPI.items[].fieldRef.fieldPath", r#""metadata.name""#, r#""metadata.namespace""#),
    ("spec.volumes[].downwardAPI.items[].mode", "1", "2"),
    ("spec.volumes[].downwardAPI.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.containerName", r#""x""#, r#""y""#),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.divisor", r#""1""#, r#""1m""#),
    ("spec.volumes[].downwardAPI.items[].resourceFieldRef.resource", r#""limits.cpu""#, r#""limits.memory""#),
    ("spec.volumes[].emptyDir.medium", r#""""#, r#""Memory""#),
    ("spec.volumes[].emptyDir.sizeLimit", r#""1Ki""#, r#""2Ki""#),
    ("spec.volumes[].hostPath.path", r#""/a""#, r#""/b""#),
    ("spec.volumes[].hostPath.type", r#""File""#, r#""Socket""#),
    ("spec.volumes[].image.pullPolicy", r#""Always""#, r#""Never""#),
    ("spec.volumes[].image.reference", r#""a""#, r#""b""#),
    ("spec.volumes[].name", r#""x""#, r#""y""#),
    ("spec.volumes[].persistentVolumeClaim.claimName", r#""a""#, r#""b""#),
    ("spec.volumes[].persistentVolumeClaim.readOnly", "true", "false"),
    ("spec.volumes[].projected.defaultMode", "1", "2"),
    ("spec.volumes[].projected.sources[].configMap.items[].key", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].configMap.items[].mode", "1", "2"),
    ("spec.volumes[].projected.sources[].configMap.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].configMap.name", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].configMap.optional", "true", "false"),
    (
        "spec.volumes[].projected.sources[].downwardAPI.items[].fieldRef.fieldPath",
        r#""metadata.name""#,
        r#""metadata.namespace""#,
    ),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].mode", "1", "2"),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.containerName", r#""x""#, r#""y""#),
    ("spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.divisor", r#""1""#, r#""1m""#),
    (
        "spec.volumes[].projected.sources[].downwardAPI.items[].resourceFieldRef.resource",
        r#""limits.cpu""#,
        r#""limits.memory""#,
    ),
    ("spec.volumes[].projected.sources[].secret.items[].key", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].secret.items[].mode", "1", "2"),
    ("spec.volumes[].projected.sources[].secret.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].secret.name", r#""a""#, r#""b""#),
    ("spec.volumes[].projected.sources[].secret.optional", "true", "false"),
    ("spec.volumes[].secret.defaultMode", "1", "2"),
    ("spec.volumes[].secret.items[].key", r#""a""#, r#""b""#),
    ("spec.volumes[].secret.items[].mode", "1", "2"),
    ("spec.volumes[].secret.items[].path", r#""a""#, r#""b""#),
    ("spec.volumes[].secret.optional", "true", "false"),
    ("spec.volumes[].secret.secretName", r#""a""#, r#""b""#),
];

/// Builds the pod of a manifest with that field, as small as possible otherwise.
fn built(path: &str, value: &str) -> Pod {
    let mut document = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "x" },
        "spec": { "containers": [{ "name": "x", "image": "x", "resources": { "limits": { "cpu": "3" } } }], "volumes": [{ "name": "v" }, { "name": "w" }] }
    });
    if path.contains("restartPolicyRules") {
        document["spec"]["containers"][0]["restartPolicy"] = json!("Never");
    }
    if path == "spec.dnsPolicy" {
        document["spec"]["dnsConfig"] = json!({ "nameservers": ["10.0.0.1"] });
    }
    let mut at = &mut document;
    let steps: Vec<_> = path.split('.').collect();
    for (place, step) in steps.iter().enumerate() {
        let (name, is_item) = step.strip_suffix("[]").map_or((*step, false), |name| (name, true));
        at = &mut at[name];
        if is_item {
            if at.is_null() {
                *at = match name {
                    "env" => json!([{ "name": "X" }]),
                    "envFrom" if path.contains("prefix") => json!([{ "configMapRef": { "name": "x" } }]),
                    "httpHeaders" => json!([{ "name": "X", "value": "x" }]),
                    "initContainers" => json!([{ "name": "i", "image": "x", "restartPolicy": "Always" }]),
                    "ports" => json!([{ "containerPort": 9, "hostPort": 9 }]),
                    "restartPolicyRules" => {
                        json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [1] } }])
                    }
                    "sysctls" => json!([{ "name": "x", "value": "x" }]),
                    "volumeMounts" if path.contains("recursive") => {
                        json!([{ "name": "v", "mountPath": "/x", "readOnly": true }])
                    }
                    "options" => json!([{ "name": "x" }]),
                    "hostAliases" => json!([{ "ip": "10.0.0.1", "hostnames": ["x"] }]),
                    "items" if path.contains("resourceFieldRef") => {
                        json!([{ "path": "x", "resourceFieldRef": { "containerName": "x", "resource": "limits.cpu" } }])
                    }
                    "items" if path.contains("downwardAPI") => {
                        json!([{ "path": "x", "fieldRef": { "fieldPath": "metadata.name" } }])
                    }
                    "items" => json!([{ "key": "x", "path": "x" }]),
                    "volumeMounts" => json!([{ "name": "v", "mountPath": "/x" }]),
                    _ => json!([{}]),
                };
            }
            at = &mut at[0];
        } else if at.is_null() && place + 1 < steps.len() {
            let is_handler = matches!(steps[place + 1], "exec" | "grpc" | "httpGet" | "tcpSocket");
            *at = match name {
                "appArmorProfile" | "seccompProfile" if path.ends_with("localhostProfile") => {
                    json!({ "type": "Localhost" })
                }
                "hostPath" => json!({ "path": "/x" }),
                "image" => json!({ "reference": "x" }),
                "securityContext" if path.ends_with("fsGroupChangePolicy") => json!({ "fsGroup": 1 }),
                "configMap" => json!({ "name": "x" }),
                "secret" if path.contains("projected") => json!({ "name": "x" }),
                "secret" => json!({ "secretName": "x" }),
                "persistentVolumeClaim" => json!({ "claimName": "x" }),
                "configMapKeyRef" | "secretKeyRef" => json!({ "name": "x", "key": "x" }),
                "configMapRef" | "secretRef" => json!({ "name": "x" }),
                "fileKeyRef" => json!({ "volumeName": "v", "path": "x", "key": "X" }),
                "resourceFieldRef" => json!({ "resource": "limits.cpu" }),
                "httpGet" | "tcpSocket" | "grpc" => json!({ "port": 9 }),
                "livenessProbe" | "readinessProbe" if !is_handler => json!({ "exec": { "command": ["x"] } }),
                _ => json!({}),
            };
        }
    }
    *at = serde_json::from_str(value).expect("values are JSON");
    if path.ends_with("procMount") {
        document["spec"]["hostUsers"] = json!(false);
    }
    let manifest = decode(document.to_string().as_bytes(), "node");
    let mut pod = manifest.unwrap_or_else(|problems| panic!("{path}: {problems:?}")).pods.remove(0);
    // These always differ.
    pod.revision = crate::Revision::new("");
    pod.wire = std::sync::Arc::default();
    if path != "metadata.uid" {
        pod.uid = crate::PodUid::new("");
        pod.annotations.retain(|name, _| !name.starts_with("kubernetes.io/config."));
    }
    pod
}

#[test]
fn executed_fields_reach_the_pod() {
    let leaves = fields().into_iter().filter(|(path, shape)| {
        let is_structure = shape.ends_with("mapping");
        let is_constant = matches!(path.as_str(), "apiVersion" | "kind");
        matches!(row(path), Some(Executed | Keys(_))) && !is_structure && !is_constant
    });
    let leaves: BTreeSet<_> = leaves.map(|(path, _)| like(&path).into_owned()).collect();
    let valued: BTreeSet<_> = VALUES.iter().map(|(path, _, _)| like(path).into_owned()).collect();
    assert_eq!(leaves, valued, "every executed field has values here");
    for (path, one, other) in VALUES {
        assert_ne!(built(path, one), built(path, other), "{path} makes no difference");
        if let Some(rest) = path.strip_prefix("spec.containers[]") {
            let path = format!("spec.initContainers[]{rest}");
            assert_ne!(built(&path, one), built(&path, other), "{path} makes no difference");
        }
    }
}

/// Returns the expected text of `docs/pod-support.md`.
fn document() -> String {
    let mut text = "# What Stanchion does with each field of a Pod\n\n\
        Made from the agent's own table by `UPDATE_DOCS=1 cargo test -p stanchion-pod documentation`; do not edit.\n\n\
        *executed*: done as it says. *no effect*: accepted, and means nothing on a lone node; `stanchion validate` warns of \
        it. *refused*: the manifest is refused by name, with the way out. What is below a field that is refused or without \
        effect shares its lot.\n\n| field | type | here | |\n|---|---|---|---|\n"
        .to_owned();
    for (path, shape) in fields() {
        let Some((at, support)) = deciding(&path) else { continue };
        let (here, note) = match support {
            Executed => ("executed", String::new()),
            Keys(known) => ("executed", format!("{}; other names are refused", known.join(", "))),
            Only(allowed) => ("refused", format!("but for `{}`, which is what happens anyway", allowed.join("`, `"))),
            NoEffect(why) | Quiet(why) => ("no effect", why.to_owned()),
            Refused(why, way_out) => ("refused", format!("{why}; {way_out}")),
        };
        let note = if at == path { note } else { format!("as `{at}`") };
        writeln!(text, "| `{path}` | {shape} | {here} | {note} |").expect("text can be written to");
    }
    text
}

#[test]
fn the_documentation_is_made_of_the_rows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pod-support.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, document()).expect("the documentation can be written");
    }
    let is_same = fs::read_to_string(&path).is_ok_and(|text| text == document());
    assert!(is_same, "docs/pod-support.md is old: UPDATE_DOCS=1 cargo test -p stanchion-pod documentation");
}
