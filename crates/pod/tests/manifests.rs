//! Valid and invalid manifests, and their problems.

mod support;

use stanchion_pod::{RestartPolicy, Value, Volume, decode};
use support::{bad, good, one};

const REDIS: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: static-pod
  labels:
    tier: backend
spec:
  containers:
  - name: redis-container
    image: redis
    ports:
    - containerPort: 6379
";

// R-ID-8.
#[test]
fn a_pod_gets_its_identity_on_the_node() {
    let manifest = good(REDIS);
    let pod = &manifest.pods[0];
    assert_eq!(pod.key.to_string(), "default/static-pod-node-1", "R-ID-2, R-ID-3");
    assert_eq!(pod.restart_policy, RestartPolicy::Always, "R-DEF-1");
    assert_eq!(pod.hostname, "static-pod-node-1");
    assert_eq!(pod.wire.metadata.uid.as_deref(), Some(pod.uid.as_str()));
    assert_eq!(manifest.warnings, []);
}

#[test]
fn only_what_a_document_says_makes_its_revision() {
    let revision = |text: &str| good(text).pods[0].revision.clone();
    let reordered = "# a comment\nkind: Pod\napiVersion: v1\nspec:\n  nodeName: null\n  containers:\n  - image: redis\n    \
                     name: redis-container\n    ports: [{containerPort: 6379}]\nmetadata: {labels: {tier: backend}, name: static-pod}\n";
    assert_eq!(revision(REDIS), revision(reordered), "R-ID-5");
    assert_ne!(revision(REDIS), revision(&REDIS.replace("backend", "front")));
    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"static-pod","labels":{"tier":"backend"}},
        "spec":{"containers":[{"name":"redis-container","image":"redis","ports":[{"containerPort":6379}]}]}}"#;
    assert_eq!(revision(REDIS), revision(json));
}

#[test]
fn an_explicit_uid_is_kept_if_it_is_harmless() {
    let with = |uid: &str| REDIS.replace("  name: static-pod", &format!("  name: static-pod\n  uid: {uid}"));
    assert_eq!(good(&with("abc-1")).pods[0].uid.as_str(), "abc-1", "R-ID-6");
    let labelled = with("abc-1").replace("tier: backend", "tier: front");
    assert_eq!(
        good(&with("abc-1")).pods[0].revision,
        good(&labelled).pods[0].revision,
        "R-CHG-2: labels restart nothing"
    );
    let other = with("abc-1").replace("image: redis", "image: other");
    assert_ne!(good(&with("abc-1")).pods[0].revision, good(&other).pods[0].revision, "R-CHG-2: an image does");
    let said = one(&with("../../etc"));
    assert!(said.starts_with("line 5, column 3: metadata.uid: Invalid value: \"../../etc\""), "R-ID-7: {said}");
}

// R-DEC-2.
#[test]
fn several_pods_come_from_one_file() {
    let two = format!("---\n{REDIS}---\n{}", REDIS.replace("static-pod", "other"));
    assert_eq!(good(&two).pods.len(), 2);
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}", REDIS.trim_end().replace('\n', "\n  "));
    assert_eq!(good(&list).pods.len(), 1);
}

#[test]
fn what_follows_the_end_of_a_document_is_left_out() {
    let other = REDIS.replace("static-pod", "other");
    for between in ["%YAML 1.2\n", "%TAG !e! x\n", "kind: Nonsense\n", "a: [\n", "...\n", ""] {
        let pods = good(&format!("{REDIS}...\n{between}---\n{other}")).pods;
        assert_eq!(pods.len(), 2, "R-DEC-2: {between:?}");
    }
    assert_eq!(good(&format!("{REDIS}...\nkind: Nonsense")).pods.len(), 1);
    let wrong = other.replace("image:", "hostname: 7\n    image:");
    assert!(one(&format!("{REDIS}...\nx\n---\n{wrong}")).starts_with("line 25, column 5:"), "lines keep their numbers");
    // Each `...` once took a pass over the whole file.
    let many = format!("{REDIS}...\nx\n---\n{}", "# nothing\n...\nx\n---\n".repeat(100_000));
    assert_eq!(good(&many).pods.len(), 1);
}

#[test]
fn a_list_of_none_says_so() {
    for none in ["apiVersion: v1\nkind: PodList\nitems: []\n", r#"{"apiVersion": "v1", "kind": "List", "items": []}"#] {
        let page = stanchion_pod::decode_from(stanchion_pod::Origin::Http, none.as_bytes(), "knode");
        assert!(page.is_ok_and(|page| page.pods.is_empty()), "R-HTTP-6");
        assert!(one(none).contains("holds no pod"), "as the API server has it");
    }
    // A list that was cut off must not remove all pods.
    for half in ["apiVersion: v1\nkind: PodList\n", "kind: List\nitems:\n", "kind: List\nitems: {}\n"] {
        let problem = one(half);
        assert!(problem.contains("items: Required value"), "R-HTTP-6: {problem}");
    }
}

// R-FILE-14.
#[test]
fn unusual_encodings_are_read() {
    assert_eq!(good(&format!("\u{feff}{REDIS}")).pods.len(), 1, "byte order mark");
    assert_eq!(good(&REDIS.replace('\n', "\r\n")).pods.len(), 1, "CRLF");
}

#[test]
fn what_kubernetes_takes_for_yaml_is_taken() {
    let args = |text: &str| {
        let manifest = good(&format!("{REDIS}    args: {text}"));
        manifest.pods[0].containers[0].args.clone().unwrap_or_default()
    };
    assert_eq!(args("[\n      a,\n    ]\n"), ["a"], "R-DEC-1: a list may end where its key begins");
    assert_eq!(args("[\n  a,\n]\n"), ["a"]);
    assert_eq!(args("[\"a\n  b\"]\n"), ["a b"]);
    assert_eq!(args("[off-white, 'yes', \"0644\"]\n"), ["off-white", "yes", "0644"]);
    assert_eq!(args("\n    - |\n      a\n"), ["a\n"]);
    assert_eq!(args("\n    - |\n      a"), ["a"], "without a line's end there is none");
    assert_eq!(args("\n    - |-\n      a"), ["a"]);
    assert_eq!(args("\n    - a"), ["a"]);
    assert_eq!(args("&x [a]\n    command: *x\n"), ["a"]);
    assert_eq!(args("[a :, b, c \t:, 'd :', e :]\n"), ["a :", "b", "c \t:", "d :", "e :"], "R-DEC-1");
    assert_eq!(args("[a:, b]\n"), ["a:", "b"], "R-DEC-1");
}

#[test]
fn fields_reach_the_pod() {
    let text = REDIS.to_owned()
        + "    command: [sh, -c, 'echo $(NAME) $$(NAME)']\n    env:\n    - {name: NAME, value: x}\n    - {name: TWICE, value: $(NAME)$(NAME)}\n    \
           resources: {limits: {cpu: 500m, memory: 64Mi}}\n    volumeMounts: [{name: data, mountPath: /data}]\n  \
           volumes:\n  - name: data\n    emptyDir: {medium: Memory, sizeLimit: 1Mi}\n  terminationGracePeriodSeconds: 0\n";
    let manifest = good(&text);
    let pod = &manifest.pods[0];
    let container = &pod.containers[0];
    assert_eq!(container.command.as_deref().map(|it| it[2].as_str()), Some("echo $(NAME) $$(NAME)"));
    assert_eq!(container.env[1].value, Value::Text("$(NAME)$(NAME)".to_owned()));
    assert_eq!((container.resources.cpu_request, container.resources.memory_limit), (Some(500), Some(64 << 20)));
    assert!(matches!(pod.volumes["data"], Volume::EmptyDir { size_limit: Some(1_048_576), .. }));
    assert_eq!(pod.grace.as_secs(), 1, "R-CHG-7");
}

// R-DEC-3.
#[test]
fn typos_are_named_with_place_and_neighbour() {
    let said = one(&REDIS.replace("    image: redis", "    image: redis\n    imge: x"));
    assert_eq!(said, "line 11, column 5: spec.containers[0].imge: unknown field \"imge\", did you mean \"image\"?");
}

// R-REJ-1.
#[test]
fn unsupported_fields_are_refused_by_name() {
    let said = one(&(REDIS.to_owned() + "  volumes: [{name: a, nfs: {server: b, path: /c}}]\n"));
    assert!(said.contains("spec.volumes[0].nfs: is not supported yet"), "{said}");
    assert_eq!(good(&(REDIS.to_owned() + "  dnsPolicy: ClusterFirst\n  hostUsers: false\n")).warnings, []);
}

// R-REJ-10.
#[test]
fn fields_without_effect_are_accepted_with_a_warning() {
    let warnings = good(&(REDIS.to_owned() + "  schedulerName: mine\n")).warnings;
    assert_eq!(
        warnings[0].to_string(),
        "line 13, column 3: spec.schedulerName: is accepted and has no effect on a lone node"
    );
}

#[test]
fn wrong_types_are_named() {
    let said = one(&REDIS.replace("image: redis", "image: 7"));
    assert!(said.contains("spec.containers[0].image: Invalid value: 7: must be text"), "R-DEC-4: {said}");
    let said = one(&REDIS.replace("containerPort: 6379", "containerPort: many"));
    assert!(said.contains("line 12") && said.contains("containerPort"), "{said}");
}

// R-DEC-3.
#[test]
fn duplicate_keys_are_refused() {
    let said = one(&REDIS.replace("    image: redis\n", "    image: redis\n    args: []\n    image: other\n"));
    assert!(said.contains("line 12") && said.contains("containers[0].image") && said.contains("line 10"), "{said}");
    let said = one(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "name": "b"},
            "spec": {"containers": [{"name": "a", "image": "b"}]}}"#);
    assert!(said.contains("metadata.name") && said.contains("duplicate"), "{said}");
}

// R-DEC-4, R-FILE-14.
#[test]
fn what_is_no_pod_is_refused_with_the_way_out() {
    assert!(one("").contains("holds no pod"));
    assert!(one("# nothing\n").contains("holds no pod"));
    assert!(one("a: [").contains("not valid YAML"));
    assert!(one("{\"a\"").contains("not valid JSON"));
    let said = one(&REDIS.replace("kind: Pod", "kind: Deployment"));
    assert!(said.contains("Deployment needs a controller") && said.contains("kind: Pod"), "{said}");
    let problems = decode(b"a: b\nc: \xff\n", "node-1").expect_err("not UTF-8");
    assert_eq!(problems[0].to_string(), "line 2: the file is not UTF-8 text; save it as UTF-8");
}

#[test]
fn big_and_deep_documents_are_refused_in_bounded_time() {
    let big = vec![b'#'; stanchion_pod::MAX_MANIFEST];
    assert!(decode(&big, "node-1").expect_err("too big")[0].message.contains("smaller than 10 MiB"), "R-FILE-12");
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(","));
    }
    assert!(one(&bomb).contains("aliases"));
    assert!(!bad(&"[".repeat(100_000)).is_empty());
    assert!(!bad(&format!("{{\"a\":{}", "[".repeat(100_000))).is_empty());
}

#[test]
fn the_api_servers_objections_are_made_all_at_once() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: Bad_Name\n  labels: {a: '-'}\nspec:\n  containers:\n  - name: a\n    \
                image: x\n    volumeMounts: [{name: gone, mountPath: /x}]\n  - name: a\n    image: x\n  restartPolicy: Sometimes\n";
    let said: Vec<_> = bad(text).into_iter().map(|problem| problem.field).collect();
    let expected = [
        "metadata.name",
        "metadata.labels",
        "spec.containers[0].volumeMounts[0].name",
        "spec.containers[1].name",
        "spec.restartPolicy",
    ];
    assert_eq!(said, expected, "R-VAL-3");
    let long = REDIS.replace("static-pod", &"a".repeat(254));
    assert!(one(&long).contains("must be no more than 253 characters"), "R-VAL-10");
    assert!(
        one("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: []}")
            .contains("spec.containers: Required value")
    );
}

#[test]
fn no_input_panics() {
    for end in 0..REDIS.len() {
        drop(decode(&REDIS.as_bytes()[..end], "node-1"));
        let mut bytes = REDIS.as_bytes().to_vec();
        for byte in [0, b'\n', b'{', b'"', 0xff] {
            bytes[end] = byte;
            drop(decode(&bytes, "node-1"));
        }
    }
}

#[test]
fn the_examples_are_accepted() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests");
    let mut found = 0;
    for directory in [examples.clone(), examples.join("control-plane")] {
        for entry in std::fs::read_dir(directory).expect("the examples are there") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|it| it == "yaml") {
                let text = std::fs::read(&path).expect("a file");
                let manifest = decode(&text, "node-1").unwrap_or_else(|wrong| panic!("{}: {wrong:#?}", path.display()));
                assert_eq!(manifest.warnings, [], "{}", path.display());
                found += 1;
            }
        }
    }
    assert!(found >= 7, "{found} examples");
}
