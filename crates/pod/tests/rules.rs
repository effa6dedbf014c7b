//! Rules of Kubernetes that no recorded manifest covers, each with a manifest that breaks it and its problem.

use stanchion_pod::{Check, Endpoint, Manifest, Pod, Probe, Problem, PullPolicy, TargetPort, Volume, decode};

const ONE: &str = "containers: [{name: a, image: b}]";

fn manifest(metadata: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{{metadata}}}\nspec:\n{spec}")
}

fn read(metadata: &str, spec: &str) -> Result<Manifest, Vec<Problem>> {
    decode(manifest(metadata, spec).as_bytes(), "node-1")
}

fn good(metadata: &str, spec: &str) -> Pod {
    let manifest = read(metadata, spec).unwrap_or_else(|problems| panic!("{spec}: {problems:#?}"));
    manifest.pods.into_iter().next().expect("there is a pod")
}

/// Returns all problems of a spec, as field and message.
fn said(metadata: &str, spec: &str) -> Vec<String> {
    let problems = read(metadata, spec).expect_err(spec);
    problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

/// Returns a container with these fields, in flow style.
fn with(fields: &str) -> String {
    format!("containers: [{{name: a, image: b, {fields}}}]")
}

fn and(fields: &str) -> String {
    format!("{ONE}\n{fields}")
}

#[test]
fn what_breaks_a_rule_of_validation_is_said() {
    let mount = "volumeMounts: [{name: v, mountPath: /v}";
    let volume = "volumes: [{name: v, emptyDir: {}}]";
    let searches = vec!["a.example"; 33].join(", ");
    let table: &[(&str, String, &str)] = &[
        (
            "R-VAL-23",
            with("terminationMessagePolicy: X"),
            "spec.containers[0].terminationMessagePolicy: Unsupported value: \"X\": supported values: \"File\", \"FallbackToLogsOnError\"",
        ),
        (
            "R-VAL-25",
            with("restartPolicy: Always, restartPolicyRules: [{action: X, exitCodes: {operator: In, values: [1]}}]"),
            "spec.containers[0].restartPolicyRules[0].action: Unsupported value: \"X\": supported values: \"Restart\", \"RestartAllContainers\"",
        ),
        (
            "R-VAL-30",
            with("ports: [{name: p, containerPort: 1}, {name: p, containerPort: 2}]"),
            "spec.containers[0].ports[1].name: Duplicate value: \"p\"",
        ),
        (
            "R-VAL-30",
            with("ports: [{containerPort: 1, hostPort: 65536}]"),
            "spec.containers[0].ports[0].hostPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            "R-VAL-42",
            with("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 2m}}}]"),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            "R-VAL-50",
            and("volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]"),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            "R-VAL-51",
            and("volumes: [{name: v, hostPath: {path: /x, type: Odd}}]"),
            "spec.volumes[0].hostPath.type: Unsupported value: \"Odd\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        (
            "R-VAL-52",
            and("volumes: [{name: v, emptyDir: {sizeLimit: -1}}]"),
            "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        (
            "R-VAL-53",
            and("volumes: [{name: v, downwardAPI: {items: [{path: ..x, fieldRef: {fieldPath: metadata.name}}]}}]"),
            "spec.volumes[0].downwardAPI.path: Invalid value: \"..x\": must not start with '..'",
        ),
        (
            "R-VAL-53",
            and("volumes: [{name: v, downwardAPI: {items: [{path: /x, fieldRef: {fieldPath: metadata.name}}]}}]"),
            "spec.volumes[0].downwardAPI.path: Invalid value: \"/x\": must be a relative path",
        ),
        (
            "R-VAL-54",
            and("volumes: [{name: v, projected: {sources: [{configMap: {name: a}, secret: {name: b}}]}}]"),
            "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
        ),
        (
            "R-VAL-55",
            and("volumes: [{name: v, image: {reference: a, pullPolicy: Once}}]"),
            "spec.volumes[0].image.pullPolicy: Unsupported value: \"Once\"",
        ),
        (
            "R-VAL-55",
            and("volumes: [{name: v, image: {reference: ''}}]"),
            "spec.volumes[0].image.reference: Required value",
        ),
        (
            "R-VAL-56",
            with("volumeMounts: [{name: gone, mountPath: /v}]"),
            "spec.containers[0].volumeMounts[0].name: Not found: \"gone\"",
        ),
        (
            "R-VAL-56",
            format!("{}\n{volume}", with(&format!("{mount}, {{name: v, mountPath: /v}}]"))),
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
        ),
        (
            "R-VAL-57",
            format!("{}\n{volume}", with("volumeMounts: [{name: v, mountPath: /v, subPath: a, subPathExpr: b}]")),
            "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            "R-VAL-58",
            format!("{}\n{volume}", with("volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional}]")),
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            "R-VAL-59",
            format!("{}\n{volume}", with("volumeMounts: [{name: v, mountPath: /v, recursiveReadOnly: Odd}]")),
            "spec.containers[0].volumeMounts.recursiveReadOnly: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Enabled\", \"IfPossible\"",
        ),
        (
            "R-VAL-71",
            with("readinessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 1}"),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (
            "R-VAL-72",
            with("livenessProbe: {httpGet: {path: '', port: 0}}"),
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "R-VAL-72",
            with("livenessProbe: {httpGet: {port: 80, scheme: FTP}}"),
            "spec.containers[0].livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
        ),
        (
            "R-VAL-72",
            with("livenessProbe: {grpc: {port: 65536}}"),
            "spec.containers[0].livenessProbe.grpc.port: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            "R-VAL-73",
            with("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            "R-VAL-81",
            with("resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}"),
            "spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit of 1Gi",
        ),
        (
            "R-VAL-82",
            with("resources: {limits: {hugepages-2Mi: 2Mi}}"),
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            "R-VAL-90",
            and(&format!("dnsConfig: {{searches: [{searches}]}}")),
            "spec.dnsConfig.searches: Invalid value: [",
        ),
        (
            "R-VAL-90",
            and("dnsConfig: {options: [{name: ''}]}"),
            "spec.dnsConfig.options[0]: Required value: must not be empty",
        ),
        (
            "R-VAL-91",
            and("activeDeadlineSeconds: 2147483648"),
            "spec.activeDeadlineSeconds: Invalid value: 2147483648: must be between 1 and 2147483647, inclusive",
        ),
        (
            "R-VAL-94",
            and("securityContext: {runAsUser: 2147483648}"),
            "spec.securityContext.runAsUser: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
        ),
        (
            "R-VAL-95",
            and("shareProcessNamespace: true\nhostPID: true"),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            "R-VAL-98",
            with("securityContext: {privileged: true, allowPrivilegeEscalation: false}"),
            "spec.containers[0].securityContext: Invalid value: {",
        ),
        (
            "R-VAL-99",
            with("securityContext: {procMount: Unmasked}"),
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
        ("R-VAL-99", and("hostUsers: false\nhostPID: true"), "spec.HostPID: Forbidden: when `hostUsers` is false"),
        (
            "R-VAL-100",
            and("securityContext: {supplementalGroupsPolicy: Odd}"),
            "spec.securityContext.supplementalGroupsPolicy: Unsupported value: \"Odd\": supported values: \"Merge\", \"Strict\"",
        ),
        ("R-VAL-104", and("volumes: [{name: v, image: {}}]"), "spec.volumes[0].image.reference: Required value"),
    ];
    for (rule, spec, expected) in table {
        let found = said("name: p", spec);
        assert!(found.iter().any(|it| it.starts_with(expected)), "{rule}: {spec}\n{found:#?}");
    }
}

#[test]
fn references_to_what_no_lone_node_has_are_refused() {
    let may_not = "static pods may not reference";
    let projected = |source: &str| and(&format!("volumes: [{{name: v, projected: {{sources: [{source}]}}}}]"));
    // R-REJ-1, R-REJ-2, R-REJ-3, R-REJ-5, R-REJ-6.
    let table = [
        (and("serviceAccountName: x"), format!("spec.serviceAccountName: {may_not} serviceaccounts")),
        // R-ID-13
        (and("serviceAccount: x"), format!("spec.serviceAccount: {may_not} serviceaccounts")),
        (
            and("resourceClaims: [{name: c, resourceClaimName: d}]"),
            format!("spec.resourceClaims: {may_not} resourceclaims"),
        ),
        (and("volumes: [{name: v, csi: {driver: d}}]"), format!("spec.volumes[0].csi: {may_not} csidrivers")),
        (
            projected("{serviceAccountToken: {path: t}}"),
            format!("spec.volumes[0].projected.sources[0].serviceAccountToken: {may_not}"),
        ),
        (
            projected("{podCertificate: {signerName: a.example/b, keyType: ED25519, credentialBundlePath: x}}"),
            "spec.volumes[0].projected.sources[0].podCertificate: is behind".to_owned(),
        ),
        (
            projected("{clusterTrustBundle: {name: x, path: z}}"),
            "spec.volumes[0].projected.sources[0].clusterTrustBundle: is behind".to_owned(),
        ),
        (
            and("volumes: [{name: v, nfs: {server: s, path: /p}}]"),
            "spec.volumes[0].nfs: is not supported yet".to_owned(),
        ),
        (
            and("volumes: [{name: v, ephemeral: {}}]"),
            "spec.volumes[0].ephemeral: is not supported; use a PersistentVolumeClaim".to_owned(),
        ),
        (
            and("ephemeralContainers: [{name: e, image: b}]"),
            "spec.ephemeralContainers: cannot be set in a manifest".to_owned(),
        ),
        (and("schedulingGates: [{name: g}]"), "spec.schedulingGates: is not supported".to_owned()),
    ];
    for (spec, expected) in table {
        let found = said("name: p", &spec);
        assert!(found.iter().any(|it| it.starts_with(&expected)), "{spec}\n{found:#?}");
    }
    for (source, expected) in [
        ("{}", "spec.volumes[0].projected.sources[0]: unknown source for projected volume \"v\""),
        ("{secrets: {name: x}}", "spec.volumes[0].projected.sources[0].secrets"),
    ] {
        let found = said("name: p", &projected(source));
        assert!(found.iter().any(|it| it.starts_with(expected)), "R-REJ-4: {source}\n{found:#?}");
    }
    let found = said("name: p", &and("volumes: [{name: v, hostDir: {path: /x}}]"));
    assert!(found[0].starts_with("spec.volumes[0].hostDir: unknown field"), "R-REJ-4: {found:#?}");
}

#[test]
fn a_pod_needs_a_name_of_its_own() {
    let found = said("generateName: p-", ONE);
    assert_eq!(
        found,
        ["metadata.name: Required value: name is needed for the pod; generateName does not help here"],
        "R-DEC-5"
    );
    assert_eq!(said("labels: {}", ONE), ["metadata.name: Required value: name or generateName is required"], "R-DEC-5");
}

#[test]
fn steps_come_one_after_another() {
    let found = said("name: p", &and("restartPolicy: Sometimes\nactiveDeadlineSeconds: soon"));
    assert_eq!(found.len(), 1, "R-DEC-8: what is no Pod is not validated: {found:#?}");
    let found = said("name: P", &and("restartPolicy: Sometimes\nserviceAccountName: x"));
    assert_eq!(found.len(), 3, "all that can be said at once is: {found:#?}");
}

#[test]
fn a_node_writes_into_a_pod_what_is_its_own() {
    let text = manifest(
        "name: p, deletionTimestamp: '2024-01-02T03:04:05Z', deletionGracePeriodSeconds: 7",
        &and("nodeName: elsewhere\nautomountServiceAccountToken: true"),
    ) + "status: {phase: Failed, message: no more}\n";
    let manifest = decode(text.as_bytes(), "node-1").unwrap_or_else(|problems| panic!("{problems:#?}"));
    let wire = &manifest.pods[0].wire;
    let spec = wire.spec.as_ref().expect("it has one");
    assert_eq!(spec.node_name.as_deref(), Some("node-1"), "R-ID-4");
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let [toleration] = tolerations else { panic!("R-ID-9: {tolerations:?}") };
    assert_eq!(
        (toleration.operator.as_deref(), toleration.effect.as_deref()),
        (Some("Exists"), Some("NoExecute")),
        "R-ID-9"
    );
    assert_eq!(wire.status, None, "R-ID-10");
    assert_eq!(
        (&wire.metadata.deletion_timestamp, wire.metadata.deletion_grace_period_seconds),
        (&None, None),
        "R-REJ-8"
    );
    let warned: Vec<_> = manifest.warnings.iter().map(|it| it.field.as_str()).collect();
    assert!(warned.contains(&"metadata.deletionTimestamp"), "R-REJ-8: {warned:?}");
    assert!(warned.contains(&"spec.automountServiceAccountToken"), "R-REJ-9: {warned:?}");
    let annotations = wire.metadata.annotations.as_ref().expect("it has some");
    assert_eq!(annotations["kubernetes.io/config.source"], "file", "R-ID-8");
    assert_eq!(annotations["kubernetes.io/config.hash"], manifest.pods[0].uid.as_str(), "R-ID-8");
    assert_eq!(good("name: p", &and("terminationGracePeriodSeconds: -5")).grace.as_secs(), 1, "R-ID-12");
    let grace = good("name: p", &and("terminationGracePeriodSeconds: 9223372036854775807")).grace;
    assert_eq!(grace.as_secs(), 2_147_483_647, "I9: no clock can add more");
}

#[test]
fn a_toleration_of_the_users_own_does_not_limit_the_nodes() {
    let pod = good(
        "name: p",
        &and("tolerations: [{operator: Exists, effect: NoExecute, tolerationSeconds: 60}, {key: a, operator: Exists}]"),
    );
    let tolerations = pod.wire.spec.as_ref().and_then(|spec| spec.tolerations.clone()).unwrap_or_default();
    assert_eq!(tolerations.len(), 2, "R-ID-9");
    assert!(tolerations.iter().all(|it| it.toleration_seconds.is_none()), "R-ID-9: {tolerations:?}");
}

#[test]
fn an_identity_outlives_an_upgrade() {
    let pod = good("name: p, labels: {a: b}", ONE);
    // Another scheme would restart every pod of every node: R-ID-5, R-RST-9.
    assert_eq!(pod.uid.as_str(), "bb977e75c41422d650617149a18c584b");
    let revision = |metadata: &str, spec: &str| good(metadata, spec).revision;
    assert_ne!(pod.revision, revision("name: p, labels: {a: c}", ONE), "R-MRG-4, R-CHG-1");
    assert_ne!(pod.revision, revision("name: p, labels: {a: b}, annotations: {c: d}", ONE), "R-MRG-4, R-CHG-1");
    let text = manifest("name: p, labels: {a: b}", ONE);
    let with_status = decode(format!("{text}status: {{phase: Failed}}\n").as_bytes(), "node-1").expect("it is good");
    assert_eq!(pod.revision, with_status.pods[0].revision, "R-MRG-4: edits of status are none");
    assert_ne!(pod.uid, decode(text.as_bytes(), "node-2").expect("it is good").pods[0].uid, "R-ID-5");
}

#[test]
fn an_image_volume_is_fetched_as_a_containers_image() {
    let volume = |source: &str| {
        let pod = good("name: p", &and(&format!("volumes: [{{name: v, image: {{{source}}}}}]")));
        (pod.volumes["v"].clone(), pod.revision)
    };
    let image = |reference: &str, pull_policy| Volume::Image { reference: reference.to_owned(), pull_policy };
    for (source, expected) in [
        ("reference: data", image("data", PullPolicy::Always)),
        ("reference: 'data:latest'", image("data:latest", PullPolicy::Always)),
        ("reference: 'data:1'", image("data:1", PullPolicy::IfNotPresent)),
        ("reference: 'data:1', pullPolicy: Always", image("data:1", PullPolicy::Always)),
        ("reference: data, pullPolicy: Never", image("data", PullPolicy::Never)),
    ] {
        assert_eq!(volume(source).0, expected, "R-VOL-11: {source}");
    }
    assert_ne!(
        volume("reference: 'data:1'").1,
        volume("reference: 'data:2'").1,
        "R-VOL-11: an edit is an edit of the pod"
    );
}

#[test]
fn probes_know_ports_by_name_and_literal_variables_only() {
    let fields = "ports: [{name: web, containerPort: 8080}], env: [{name: A, value: x}, {name: B, valueFrom: {fieldRef: {fieldPath: \
                  metadata.name}}}], livenessProbe: {exec: {command: [$(A), $(B), $$(A)]}}, readinessProbe: {httpGet: {port: \
                  web, path: health}}, startupProbe: {tcpSocket: {port: lost}}";
    let pod = good("name: p", &with(fields));
    let container = &pod.containers[0];
    let check = |probe: &Option<Probe>| probe.as_ref().expect("it has one").check.clone();
    let words = ["x", "$(B)", "$(A)"].map(str::to_owned).to_vec();
    assert_eq!(check(&container.liveness), Check::Exec(words), "R-PRB-33");
    let Check::Http(get) = check(&container.readiness) else { panic!("R-PRB-20") };
    assert_eq!(get.to, Endpoint { host: None, port: TargetPort::Number(8080) }, "R-PRB-20, R-PRB-34");
    assert_eq!(get.to.host("192.0.2.1".parse().expect("an address")), "192.0.2.1", "R-PRB-20");
    assert_eq!(get.path, "/health", "R-PRB-25");
    let lost = Endpoint { host: None, port: TargetPort::Unknown("lost".to_owned()) };
    assert_eq!(check(&container.startup), Check::Tcp(lost), "R-PRB-34");
}

#[test]
fn a_mount_begins_at_the_root() {
    let pod = good(
        "name: p",
        &format!("{}\nvolumes: [{{name: v, emptyDir: {{}}}}]", with("volumeMounts: [{name: v, mountPath: data/x}]")),
    );
    assert_eq!(pod.containers[0].mounts[0].path, "/data/x", "R-MNT-3");
}
