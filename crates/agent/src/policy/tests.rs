use super::*;

fn pod(spec: &str) -> Pod {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
    stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods.remove(0)
}

fn said(level: Level, spec: &str) -> String {
    let policy = Policy { level, ..Policy::default() };
    rejection(&policy, &pod(spec)).map(|it| it.message.to_string()).unwrap_or_default()
}

fn with(context: &str) -> String {
    format!("{{containers: [{{name: c, image: a, securityContext: {context}}}]}}")
}

#[test]
fn registries_are_taken_whole() {
    let registries = Some(vec!["docker.io/library/".to_owned(), "r.example:5000".to_owned()]);
    let policy = Policy { registries, ..Policy::default() };
    for (image, allowed) in [
        ("redis", true),
        ("docker.io/library/redis:7", true),
        ("team/app", false),
        ("r.example:5000/a/b", true),
        ("r.example:50001/a/b", false),
        ("r.example/a", false),
    ] {
        let refused = rejection(&policy, &pod(&format!("{{containers: [{{name: c, image: '{image}'}}]}}")));
        assert_eq!(refused.is_none(), allowed, "R-REJ-12: {image}: {refused:?}");
    }
    let volume = "{containers: [{name: c, image: redis}], volumes: [{name: v, image: {reference: team/app}}]}";
    assert!(rejection(&policy, &pod(volume)).is_some_and(|it| it.message.contains("volume \"v\"")), "R-REJ-12");
    let exempt = Policy { exempt_namespaces: vec!["default".to_owned()], ..policy };
    assert_eq!(rejection(&exempt, &pod("{containers: [{name: c, image: team/app}]}")), None);
}

#[test]
fn baseline_keeps_pods_away_from_the_node() {
    let plain = "{containers: [{name: c, image: a, securityContext: {capabilities: {add: [KILL]}}}]}";
    assert_eq!(said(Level::Baseline, plain), "", "R-GAP-22");
    for (spec, words) in [
        (with("{privileged: true}"), "container \"c\" must not set privileged=true"),
        (with("{capabilities: {add: [SYS_ADMIN]}}"), "must not add the capability SYS_ADMIN"),
        (with("{seccompProfile: {type: Unconfined}}"), "must not set seccompProfile.type to Unconfined"),
        (with("{appArmorProfile: {type: Unconfined}}"), "must not set appArmorProfile.type to Unconfined"),
        (with("{seLinuxOptions: {type: spc_t}}"), "must not set seLinuxOptions"),
        ("{hostNetwork: true, containers: [{name: c, image: a}]}".to_owned(), "must not set hostNetwork=true"),
        ("{hostPID: true, containers: [{name: c, image: a}]}".to_owned(), "must not set hostPID=true"),
        (
            "{containers: [{name: c, image: a}], volumes: [{name: v, hostPath: {path: /}}]}".to_owned(),
            "volume \"v\" must not be a hostPath",
        ),
        (
            "{containers: [{name: c, image: a, ports: [{containerPort: 1, hostPort: 1}]}]}".to_owned(),
            "must not use a hostPort",
        ),
        (
            "{containers: [{name: c, image: a, livenessProbe: {tcpSocket: {port: 1, host: 10.0.0.1}}}]}".to_owned(),
            "must not name a host",
        ),
        (
            "{securityContext: {sysctls: [{name: net.core.somaxconn, value: '1'}]}, containers: [{name: c, image: a}]}"
                .to_owned(),
            "is not a safe one",
        ),
    ] {
        let said = said(Level::Baseline, &spec);
        assert!(said.starts_with("violates PodSecurity \"baseline\": ") && said.contains(words), "{words}: {said}");
        assert_eq!(self::said(Level::Privileged, &spec), "", "R-REJ-12: nothing is refused by default");
    }
}

#[test]
fn what_is_executed_is_judged_however_it_is_written() {
    let said = |level: Level, text: &str| {
        let text = format!("apiVersion: v1\nkind: Pod\n{text}\n");
        let mut pods =
            stanchion_pod::decode(text.as_bytes(), "n").unwrap_or_else(|problems| panic!("{problems:#?}")).pods;
        let policy = Policy { level, ..Policy::default() };
        rejection(&policy, &pods.remove(0)).map(|it| it.message.to_string()).unwrap_or_default()
    };
    let fine = "securityContext: {allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, \
                capabilities: {drop: [all]}}";
    let annotated = |container: &str, profile: &str, spec: &str| {
        format!(
            "metadata: {{name: a, annotations: {{container.apparmor.security.beta.kubernetes.io/{container}: {profile}}}}}\nspec: {spec}"
        )
    };
    let spec = format!(
        "{{initContainers: [{{name: i, image: a, restartPolicy: Always, {fine}}}], containers: [{{name: c, image: a, {fine}}}]}}"
    );
    for level in [Level::Baseline, Level::Restricted] {
        for container in ["c", "i"] {
            let found = said(level, &annotated(container, "unconfined", &spec));
            let words = format!("container {container:?} must not set appArmorProfile.type to Unconfined");
            assert!(found.contains(&words), "R-GAP-22: {found}");
        }
        for profile in ["runtime/default", "localhost/mine"] {
            assert_eq!(said(level, &annotated("c", profile, &spec)), "", "R-GAP-22: {profile}");
        }
    }
    let pod = |context: &str, own: &str| {
        format!(
            "metadata: {{name: a}}\nspec: {{securityContext: {context}, containers: [{{name: c, image: a, {own}}}]}}"
        )
    };
    for (context, own, words) in [
        ("{seccompProfile: {type: Unconfined}}", fine, "the pod must not set seccompProfile.type"),
        ("{appArmorProfile: {type: Unconfined}}", fine, "container \"c\" must not set appArmorProfile.type"),
        ("{seLinuxOptions: {role: r}}", fine, "container \"c\" must not set seLinuxOptions"),
        ("{runAsUser: 0}", fine, "container \"c\" must not set runAsUser=0"),
        ("{runAsNonRoot: false}", fine, "the pod must not set runAsNonRoot=false"),
        ("{sysctls: [{name: net/ipv4.tcp_syncookies, value: '1'}]}", fine, "is not a safe one"),
        ("{}", "ports: [{containerPort: 1, hostPort: 2}]", "must not use a hostPort"),
        ("{}", "securityContext: {capabilities: {add: [cap_sys_admin]}}", "add the capability SYS_ADMIN"),
        ("{}", "lifecycle: {preStop: {httpGet: {port: 1, host: h}}}", "must not name a host"),
    ] {
        let found = said(Level::Restricted, &pod(context, own));
        assert!(found.contains(words), "R-GAP-22: {words}: {found}");
    }
    let inherited = "{runAsNonRoot: true, seccompProfile: {type: Localhost, localhostProfile: p.json}}";
    let own = "ports: [{containerPort: 1, hostPort: 0}], securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}";
    assert_eq!(said(Level::Restricted, &pod(inherited, own)), "", "R-SEC-1: a container has what its pod says");
}

#[test]
fn restricted_says_all_that_is_lacking() {
    let found = said(Level::Restricted, &with("{runAsUser: 0}"));
    for words in
        ["allowPrivilegeEscalation=false", "runAsNonRoot=true", "not set runAsUser=0", "seccompProfile", "drop the"]
    {
        assert!(found.contains(words), "R-GAP-22: {words}: {found}");
    }
    let fine = "{allowPrivilegeEscalation: false, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}, \
                capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}}";
    assert_eq!(said(Level::Restricted, &with(fine)), "");
}
