use serde_json::{Value, json};

use super::*;

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn entry(document: &Value, platform: &Value) -> Value {
    let bytes = bytes(document);
    json!({"mediaType": kind(document), "digest": digest(&bytes), "size": bytes.len(), "platform": platform})
}

fn kind(document: &Value) -> &'static str {
    if document.get("manifests").is_some() { INDEX } else { MANIFEST }
}

fn descriptor(name: &str) -> Value {
    json!({"digest": digest(name.as_bytes()), "size": 1})
}

fn manifest(name: &str) -> Value {
    json!({"config": descriptor(name), "layers": []})
}

fn index(entries: &[Value]) -> Value {
    json!({"schemaVersion": 2, "manifests": entries})
}

/// Runs a search from `root` in `documents`, and returns the digest of the configuration found, and the number of
/// reads.
fn find(root: &Value, documents: &[Vec<u8>]) -> (Result<String>, usize) {
    let root = bytes(root);
    let mut read = 0;
    let run = || {
        let root_digest = digest(&root);
        let mut search = Search::of(root, root_digest)?;
        loop {
            match search.step()? {
                Next::Found(found) => return Ok(found.manifest.config.digest),
                Next::Read(blob, _) => {
                    read += 1;
                    let found = documents.iter().find(|it| digest(it) == blob.digest);
                    search.take(found.cloned().unwrap_or_else(|| b"something else".to_vec()))?;
                }
            }
        }
    };
    let found = run();
    (found, read)
}

fn own(variant: &str) -> Value {
    json!({"os": "linux", "architecture": platform::architecture(), "variant": variant})
}

#[test]
fn the_entry_that_fits_best_is_found_and_others_are_passed_over() {
    let (right, other, artifact) = (manifest("right"), manifest("other"), manifest("artifact"));
    let (right_entry, other_entry) = (entry(&right, &own("")), entry(&other, &own("v3")));
    let documents: Vec<_> = [&right, &other, &artifact].map(bytes).into();
    let nested = index(&[other_entry.clone(), right_entry.clone()]);
    let empty = index(std::slice::from_ref(&other_entry));
    let mut lacks_os = right_entry.clone();
    lacks_os["platform"] = json!({"architecture": platform::architecture()});
    for (name, entries) in [
        ("an artifact without a platform first", vec![entry(&artifact, &Value::Null), right_entry.clone()]),
        ("a variant first", vec![other_entry.clone(), right_entry.clone()]),
        ("an entry without an operating system", vec![lacks_os.clone()]),
        (
            "entries that are none",
            vec![json!(7), Value::Null, json!({"size": "x"}), json!({"digest": "../x"}), right_entry.clone()],
        ),
        (
            "another kind",
            vec![json!({"mediaType": "text/plain", "digest": digest(b"x"), "platform": own("")}), right_entry],
        ),
        ("an index in an index", vec![entry(&nested, &Value::Null)]),
        ("an index that has nothing, then one that has", vec![entry(&empty, &own("")), entry(&nested, &own(""))]),
        ("the same twice", vec![entry(&nested, &own("")), entry(&nested, &own(""))]),
    ] {
        let documents = [documents.clone(), vec![bytes(&nested), bytes(&empty)]].concat();
        let (found, _) = find(&index(&entries), &documents);
        assert_eq!(found.unwrap_or_else(|error| panic!("{name}: {}", error.chain())), digest(b"right"), "{name}");
    }
    let (found, read) =
        find(&index(&[other_entry, entry(&right, &json!({"os": "plan9", "architecture": "amd64"}))]), &documents);
    assert_eq!((found.expect_err("nothing fits").kind(), read), (ErrorKind::NotFound, 0));
}

#[test]
fn an_entry_without_a_platform_is_what_its_configuration_says() {
    let of = |config: &Value| {
        let config = bytes(config);
        let manifest = json!({"config": {"digest": digest(&config), "size": config.len()}, "layers": null});
        (index(&[entry(&manifest, &Value::Null)]), vec![bytes(&manifest), config])
    };
    let (right, documents) = of(&json!({"os": "linux", "architecture": platform::architecture()}));
    assert!(find(&right, &documents).0.is_ok());
    for wrong in [json!({}), json!({"os": "linux", "architecture": "s390x"}), json!([])] {
        let (index, documents) = of(&wrong);
        assert_eq!(find(&index, &documents).0.expect_err("not for this node").kind(), ErrorKind::NotFound, "{wrong}");
    }
}

#[test]
fn indexes_without_end_end() {
    let mut documents = vec![bytes(&manifest("far"))];
    let mut chain = manifest("far");
    for depth in 0..100 {
        chain = json!({"depth": depth, "manifests": [entry(&chain, &own(""))]});
        documents.push(bytes(&chain));
    }
    let (found, read) = find(&chain, &documents);
    let error = found.expect_err("it is far").chain();
    assert!(error.contains("limit \"manifests and indexes of an image\"") && read < 40, "{read}: {error}");

    // No index can contain its own digest; one that claims so has another content.
    let own_digest = format!("sha256:{}", "0".repeat(64));
    let itself = index(&[json!({"digest": own_digest, "size": 10, "mediaType": INDEX})]);
    let mut search = Search::of(bytes(&itself), digest(&bytes(&itself))).expect("an index");
    assert!(matches!(search.step(), Ok(Next::Read(..))));
    assert!(search.take(bytes(&itself)).expect_err("another content").chain().contains("has another content"));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let mut large = entry(&manifest("large"), &own(""));
    large["size"] = json!(limits::MANIFEST.most + 1);
    let (found, read) = find(&index(&[large]), &[]);
    let error = found.expect_err("it is large").chain();
    assert!(error.contains("limit \"image manifest\"") && read == 0, "{error}");
    let document = json!({"config": descriptor("config"), "layers": vec![descriptor("layer"); 1025]});
    let error = Document::read(&bytes(&document)).expect_err("too many layers").chain();
    assert!(error.contains("limit \"layers of an image\""), "{error}");
    let error = Document::read(&bytes(&index(&vec![json!(0); 4097]))).expect_err("too many entries").chain();
    assert!(error.contains("limit \"entries of an image index\""), "{error}");
}

#[test]
fn manifests_are_read_leniently_but_are_one_thing() {
    for lenient in [
        json!({"config": descriptor("c"), "layers": null}),
        json!({"config": descriptor("c")}),
        json!({"config": descriptor("c"), "layers": [], "mediaType": null, "annotations": 7, "manifests": null}),
        json!({"config": {"digest": digest(b"c"), "size": null, "platform": null, "annotations": null}}),
    ] {
        assert!(matches!(Document::read(&bytes(&lenient)), Ok(Document::Manifest(_))), "{lenient}");
    }
    for (wrong, said) in [
        (json!({"config": descriptor("c"), "manifests": []}), "at once"),
        (json!({"layers": [], "manifests": []}), "at once"),
        (json!({"layers": []}), "no image configuration"),
        (json!({"fsLayers": [], "schemaVersion": 1}), "schema 1"),
        (json!({"config": {"digest": "sha256:../../x"}}), "not the digest"),
        (json!({"config": descriptor("c"), "layers": [null]}), "cannot be read"),
        (json!({"config": {"digest": digest(b"c"), "size": u64::MAX}}), "cannot have"),
        (json!([]), "cannot be read"),
    ] {
        let error = Document::read(&bytes(&wrong)).expect_err(said).chain();
        assert!(error.contains(said), "{wrong}: {error}");
    }
}

#[test]
fn configurations_are_read_leniently() {
    let config = json!({
        "config": {
            "Env": ["A=b", null], "Cmd": null, "Entrypoint": ["/run"], "Volumes": {"/data": null, "/cache": {}, "/x": 1},
            "User": null, "StopSignal": "SIGRTMIN+3", "ExposedPorts": null, "Labels": 7, "OnBuild": null,
        },
        "rootfs": {"type": null, "diff_ids": ["sha256:a"]}, "history": null, "created": "yesterday",
    });
    let read = ImageConfig::read(&bytes(&config)).expect("it is lenient");
    let RunConfig { user, env, entrypoint, cmd, volumes, working_dir, stop_signal } = read.config.clone();
    assert_eq!((env, entrypoint, cmd), (vec!["A=b".to_owned(), String::new()], vec!["/run".to_owned()], Vec::new()));
    assert_eq!((user.as_str(), working_dir.as_str(), stop_signal.as_str()), ("", "", "SIGRTMIN+3"));
    assert_eq!(
        (volumes, read.diff_ids()),
        (["/cache", "/data", "/x"].map(str::to_owned).into(), &["sha256:a".to_owned()][..])
    );
    for empty in [json!({}), json!({"config": null, "rootfs": null, "os": null, "architecture": null})] {
        assert_eq!(ImageConfig::read(&bytes(&empty)).expect("it is lenient"), ImageConfig::default(), "{empty}");
    }
    let error = ImageConfig::read(&vec![b' '; limits::CONFIG.size() + 1]).expect_err("it is large").chain();
    assert!(error.contains("limit \"image configuration\""), "{error}");
}
