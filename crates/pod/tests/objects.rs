//! Decodes documents of objects that pods refer to.

mod support;

use stanchion_pod::{Object, ObjectKind};
use support::{bad, good, one};

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ntype: Opaque\n";

// R-GAP-14.
#[test]
fn objects_stand_beside_pods() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: team, labels: {a: b}}\ndata: {a: one, b: \
                ''}\nbinaryData: {c: /w==}\nimmutable: true\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys}\ndata: {a: \
                aHVudGVyMg==, b: YQ==}\nstringData: {b: c}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: \
                data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\napiVersion: v1\nkind: \
                Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: x}]}\n";
    let manifest = good(text);
    assert_eq!((manifest.pods.len(), manifest.objects.len()), (1, 3), "R-GAP-14");
    let found: Vec<_> =
        manifest.objects.iter().map(|(key, _)| (key.kind, key.namespace.as_str(), key.name.as_str())).collect();
    assert_eq!(found[0], (ObjectKind::ConfigMap, "team", "settings"));
    assert_eq!(found[1], (ObjectKind::Secret, "default", "keys"));
    assert_eq!(manifest.objects[0].1.get("c"), Some(&[0xff][..]));
    assert_eq!(manifest.objects[0].1.keys(), ["a", "b", "c"]);
    assert_eq!(manifest.objects[1].1.get("a"), Some(&b"hunter2"[..]));
    assert_eq!(manifest.objects[1].1.get("b"), Some(&b"c"[..]), "stringData wins");
    assert_eq!(manifest.objects[2].1, Object::PersistentVolumeClaim);
    assert_eq!(manifest.warnings.len(), 1, "what a directory does not heed is said: {:?}", manifest.warnings);
    assert!(!format!("{manifest:?}").contains("hunter2"), "I10");
}

#[test]
fn a_medium_that_this_node_does_not_have_is_refused_by_name() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: a, image: a}]\n  volumes: [{name: \
               v, emptyDir: {medium: Floppy}}]\n";
    assert_eq!(
        one(pod),
        "line 6, column 34: spec.volumes[0].emptyDir.medium: unknown storage medium \"Floppy\"; use Memory, HugePages or HugePages-<size>, or \
         leave it out"
    );
}

#[test]
fn a_list_may_hold_objects() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n";
    assert_eq!(good(text).objects.len(), 1);
}

#[test]
fn what_is_wrong_with_an_object_is_said_at_its_place() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n";
    for (text, said) in [
        (format!("{map}dta: {{a: b}}\n"), "line 4, column 1: dta: unknown field \"dta\", did you mean \"data\"?"),
        (
            format!("{map}data: {{a: 1}}\n"),
            "line 4, column 11: data.a: Invalid value: 1: must be text, not a number; put it in quotes",
        ),
        (
            format!("{map}data: {{'a/b': x}}\n"),
            "line 4, column 8: data[a/b]: Invalid value: \"a/b\": a valid config key must",
        ),
        (
            format!("{map}data: {{..a: x}}\n"),
            "line 4, column 8: data[..a]: Invalid value: \"..a\": must not start with '..'",
        ),
        (format!("{map}binaryData: {{a: '?'}}\n"), "line 4, column 14: binaryData[a]: Invalid value: must be base64"),
        (
            format!("{map}data: {{a: x}}\nbinaryData: {{a: eA==}}\n"),
            "line 5, column 14: binaryData[a]: Invalid value: \"a\": duplicate",
        ),
        ("apiVersion: v1\nkind: ConfigMap\n".to_owned(), "line 1, column 1: metadata.name: Required value"),
        (
            "apiVersion: v2\nkind: ConfigMap\n".to_owned(),
            "line 1, column 1: apiVersion: Invalid value: \"v2\": a ConfigMap is of",
        ),
        (
            map.replace("settings", "../x"),
            "line 3, column 12: metadata.name: Invalid value: \"../x\": a lowercase RFC 1123",
        ),
    ] {
        let found = one(&text);
        assert!(found.starts_with(said), "{said}\n{found}");
    }
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a}\nspec: {volumeMode: Block}\n";
    assert!(one(claim).contains("spec.volumeMode: is not supported"));
}

#[test]
fn a_config_map_may_have_one_mebibyte_and_no_more() {
    let map = |size: usize| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: big}}\ndata: {{a: {}}}\n", "x".repeat(size))
    };
    assert_eq!(good(&map(1 << 20)).objects.len(), 1);
    assert!(one(&map((1 << 20) + 1)).contains("Too long: may not be more than 1048576 bytes"));
}

#[test]
fn what_is_wrong_with_a_secret_does_not_tell_what_is_in_it() {
    for text in [
        "data: {password: hunter2!}\n",
        "stringData: {password: [hunter2]}\n",
        "stringData:\n  password: hunter2\n  password: hunter2\n",
        "data: [hunter2]\n",
        "stringData: hunter2\n",
        "type: kubernetes.io/tls\nstringData: {password: hunter2}\n",
        "stringData: {password: *hunter2}\n",
        "stringData: {password: !hunter2 x}\nx: y\n",
        "stringData: {password: \"hunter2}\n",
        "stringData: {password: 'hunter2\n",
        "stringData: {password: hunter2: x: y}\n",
        "stringData:\n  password: @hunter2\n",
        "stringData:\n  password: %hunter2\n",
        "stringData: {password: \"\\hunter2\"}\n",
    ] {
        let problems = bad(&format!("{}{text}", SECRET.replace("type: Opaque\n", "")));
        assert!(!format!("{problems:?}").contains("hunter2"), "I10: {text}: {problems:?}");
    }
}
