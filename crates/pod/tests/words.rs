//! Values of a manifest as the API server shows them in its messages.

use stanchion_pod::{
    decode,
    kubernetes::{Answer, Gates, judge},
};

/// Returns the server's problems with a pod with all gates open, as field and message.
fn said(metadata: &str, spec: &str) -> Vec<String> {
    let text = format!("---\n{{apiVersion: v1, kind: Pod, metadata: {{name: a{metadata}}}, spec: {{{spec}}}}}");
    let answers = judge(text.as_bytes(), &Gates::open()).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    match &answers[..] {
        [Answer::Invalid(problems)] => {
            problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
        }
        other => panic!("{text}: {other:?}"),
    }
}

const CONTAINERS: &str = "containers: [{name: c, image: i}]";

#[test]
fn texts_in_what_is_said_are_quoted_as_go_quotes_them() {
    let volume = |volume: &str| format!("{CONTAINERS}, volumes: [{volume}]");
    let projected = |source: &str| volume(&format!("{{name: v, projected: {{sources: [{source}]}}}}"));
    let claim = r#"{name: "v\u200b", ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}}"#;
    for (metadata, spec, expected) in [
        (
            r#", annotations: {container.apparmor.security.beta.kubernetes.io/c: "x\u200b"}"#,
            CONTAINERS.to_owned(),
            r#"invalid AppArmor profile name: "x\u200b""#,
        ),
        ("", volume(claim), r#"PVC name "a-v\u200b": a lowercase"#),
        (
            "",
            projected(r#"{clusterTrustBundle: {signerName: "x\u200b.b/c", path: p}}"#),
            r#"validating label "x\u200b.b": a lowercase"#,
        ),
        (
            "",
            projected(r#"{clusterTrustBundle: {signerName: "x\u200b.b/c", path: p}}"#),
            r#"validating label "x\u200b": a lowercase"#,
        ),
        (
            "",
            format!(r#"{CONTAINERS}, tolerations: [{{key: a, operator: Gt, value: "1\u200b"}}]"#),
            r#"strconv.ParseInt: parsing "1\u200b": invalid syntax"#,
        ),
    ] {
        let found = said(metadata, &spec);
        assert!(found.iter().any(|it| it.contains(expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn sources_of_projected_volumes_are_shown_as_go_shows_them() {
    let projected = |source: &str| format!("{CONTAINERS}, volumes: [{{name: v, projected: {{sources: [{source}]}}}}]");
    let selector = "labelSelector: {matchExpressions: [{key: a, operator: In, values: [b]}], matchLabels: {c: d}}";
    let shown = r#"{"matchLabels":{"c":"d"},"matchExpressions":[{"key":"a","operator":"In","values":["b"]}]}"#;
    let bundle = |fields: &str| projected(&format!("{{clusterTrustBundle: {{{fields}, {selector}, path: p}}}}"));
    for (spec, expected) in [
        (bundle("name: m"), format!("Invalid value: {shown}: labelSelector must be unset")),
        (bundle("name: m, signerName: a.b/c"), format!(r#""LabelSelector":{shown},"Optional":null"#)),
        (
            projected(r#"{podCertificate: {signerName: a.b/c, keyType: "a<b", keyPath: p}}"#),
            r#"keyType: Unsupported value: "a<b": supported values: "RSA3072""#.to_owned(),
        ),
    ] {
        let found = said("", &spec);
        assert!(found.iter().any(|it| it.contains(&expected)), "{expected}\n{found:#?}");
    }
}

#[test]
fn texts_of_a_type_of_their_own_are_shown_as_json() {
    let policy = r#"{resourceName: "a<b", restartPolicy: NotRequired}"#;
    let found = said("", &format!("containers: [{{name: c, image: i, resizePolicy: [{policy}, {policy}]}}]"));
    let expected = r#"spec.containers[0].resizePolicy[1]: Duplicate value: "a\u003cb""#;
    assert!(found.iter().any(|it| it == expected), "{found:#?}");
    let context = "privileged: true, allowPrivilegeEscalation: false";
    for (capabilities, shown) in [
        ("add: []", r#"{"Capabilities":{"Add":[],"Drop":null},"#),
        ("drop: []", r#"{"Capabilities":{"Add":null,"Drop":[]},"#),
    ] {
        let context = format!("securityContext: {{capabilities: {{{capabilities}}}, {context}}}");
        let found = said("", &format!("containers: [{{name: c, image: i, {context}}}]"));
        assert!(found.iter().any(|it| it.contains(shown)), "{found:#?}");
    }
}

#[test]
fn lists_of_capabilities_without_entries_are_left_out_of_a_pod() {
    let text = "---\n{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i, securityContext: \
                {capabilities: {add: [], drop: []}}}]}}";
    let manifest = decode(text.as_bytes(), "node-1").unwrap_or_else(|problems| panic!("{problems:?}"));
    let containers = manifest.pods[0].wire.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
    let capabilities = containers[0].security_context.as_ref().and_then(|context| context.capabilities.clone());
    assert_eq!(capabilities, Some(Default::default()));
}

#[test]
fn our_own_words_quote_as_the_servers_do() {
    let pod = |metadata: &str, spec: &str| {
        format!("---\n{{apiVersion: v1, kind: Pod, metadata: {{{metadata}}}, spec: {{{spec}}}}}")
    };
    let map = r#"--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {"x\u200b": b}, binaryData: {"x\u200b": YQ==}}"#;
    for (text, expected) in [
        (pod(r#"name: a, uid: "x\u200b""#, CONTAINERS), r#"Invalid value: "x\u200b": must consist of"#),
        (map.to_owned(), r#"Invalid value: "x\u200b": duplicate of key present in data"#),
        (pod("name: a", &format!(r#"{CONTAINERS}, "x\u200b": b"#)), r#"unknown field "x\u200b""#),
        (
            pod("name: a", &format!(r#"{CONTAINERS}, hostPID: "x\u200b""#)),
            r#"Invalid value: "x\u200b": must be true or false"#,
        ),
        (r#"--- {apiVersion: v1, kind: "x\u200b"}"#.to_owned(), r#"unsupported kind "x\u200b""#),
        (
            pod("name: a", &format!(r#"{CONTAINERS}, volumes: [{{name: v, emptyDir: {{medium: "x\u200b"}}}}]"#)),
            r#"unknown storage medium "x\u200b""#,
        ),
        (pod("name: !!int \"x\\u200b\"", CONTAINERS), r#""x\u200b" is no !!int"#),
    ] {
        let problems = decode(text.as_bytes(), "node-1").expect_err("it is wrong");
        assert!(problems.iter().any(|problem| problem.message.contains(expected)), "{expected}\n{problems:#?}");
    }
}
