use std::{fs::File, io::Write as _};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::*;

/// Makes an archive of these files and symbolic links.
fn archive(files: &[(String, Vec<u8>)], links: &[(&str, &str)]) -> (tempfile::TempDir, Unpacked) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("archive");
    let mut archive = Builder::new(File::create(&path).expect("a file"));
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, &**content).expect("written");
    }
    for (name, to) in links {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, to).expect("written");
    }
    archive.into_inner().expect("ended").flush().expect("written");
    let unpacked = Unpacked::of(&path, dir.path()).expect("an archive");
    (dir, unpacked)
}

fn blob(content: &[u8]) -> (Value, (String, Vec<u8>)) {
    let digest = oci::digest(content);
    (json!({"digest": digest, "size": content.len()}), (place(&digest), content.to_vec()))
}

fn document(value: &Value) -> (Value, (String, Vec<u8>)) {
    blob(value.to_string().as_bytes())
}

fn named(mut entry: Value, name: &str) -> Value {
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name, "other": 7});
    entry
}

fn index(entries: &[Value]) -> (String, Vec<u8>) {
    ("index.json".to_owned(), json!({"manifests": entries}).to_string().into_bytes())
}

/// Finds the first image that an archive names.
fn first(archive: &Unpacked) -> Result<Packed> {
    find(archive, list(archive)?.remove(0))
}

fn own() -> Value {
    json!({"os": "linux", "architecture": oci::platform::architecture()})
}

#[test]
fn a_layout_is_followed_within_bounds_and_every_digest_is_compared() {
    let (layer, layer_file) = blob(b"layer");
    let (config, config_file) = document(&json!({"os": "linux", "architecture": oci::platform::architecture()}));
    let manifest = json!({"config": config, "layers": [layer]});
    let (mut entry, manifest_file) = document(&manifest);
    entry["platform"] = own();
    let (nested, nested_file) = document(&json!({"manifests": [entry]}));
    let other = {
        let mut other = named(entry.clone(), "a:1");
        other["platform"] = json!({"os": "linux", "architecture": "s390x"});
        other
    };
    let blobs = [layer_file.clone(), config_file.clone(), manifest_file.clone(), nested_file];
    for entries in
        [vec![named(entry.clone(), "a:1")], vec![named(nested, "a:1")], vec![other, named(entry.clone(), "a:1")]]
    {
        let (_dir, unpacked) = archive(&[&blobs[..], &[index(&entries)]].concat(), &[]);
        assert_eq!(list(&unpacked).expect("an index").len(), 1);
        let packed = first(&unpacked).expect("it is found");
        assert_eq!(
            (packed.names, packed.found.bytes),
            (vec!["docker.io/library/a:1".to_owned()], manifest_file.1.clone())
        );
        assert_eq!(packed.parts.len(), 2);
    }

    // Content that differs from its digest.
    for (file, said) in [(&manifest_file, "has another content"), (&config_file, "has another content")] {
        let changed = blobs.iter().map(|it| match it == file {
            true => (it.0.clone(), [it.1.as_slice(), b" "].concat()),
            false => it.clone(),
        });
        let files: Vec<_> = changed.chain([index(&[named(entry.clone(), "a:1")])]).collect();
        let error = first(&archive(&files, &[]).1).map(drop).expect_err(said).chain();
        assert!(error.contains(said), "{error}");
    }
    let short = (layer_file.0, b"lay".to_vec());
    let files = [short, config_file, manifest_file, index(&[named(entry, "a:1")])];
    let error = first(&archive(&files, &[]).1).map(drop).expect_err("it is short").chain();
    assert!(error.contains("has 3 bytes, not 5"), "{error}");
}

#[test]
fn an_index_that_leads_to_itself_ends() {
    let digest = format!("sha256:{}", "7".repeat(64));
    let itself = json!({"digest": digest, "size": 10, "platform": own()});
    let file = (place(&digest), json!({"manifests": [itself]}).to_string().into_bytes());
    let error =
        first(&archive(&[file, index(&[named(itself, "a:1")])], &[]).1).map(drop).expect_err("no image").chain();
    assert!(error.contains("has another content"), "{error}");

    let (mut chain, mut files) = (json!({"config": {}, "layers": []}), Vec::new());
    let mut last = Value::Null;
    for _ in 0..100 {
        let (mut entry, file) = document(&chain);
        entry["platform"] = own();
        files.push(file);
        chain = json!({"manifests": [entry]});
        last = entry;
    }
    files.push(index(&[named(last, "a:1")]));
    let error = first(&archive(&files, &[]).1).map(drop).expect_err("it is far").chain();
    assert!(error.contains("limit \"manifests and indexes of an image\""), "{error}");
}

#[test]
fn large_documents_are_not_read() {
    let large = vec![b' '; limits::CONFIG.size() + 1];
    for (files, said) in [
        (vec![("index.json".to_owned(), large.clone())], "image manifest"),
        (vec![("manifest.json".to_owned(), large.clone())], "image manifest"),
        (
            vec![
                ("manifest.json".to_owned(), br#"[{"Config": "c.json", "RepoTags": ["a:1"], "Layers": []}]"#.to_vec()),
                ("c.json".to_owned(), large),
            ],
            "image configuration",
        ),
    ] {
        let error = first(&archive(&files, &[]).1).map(drop).expect_err(said).chain();
        assert!(error.contains(&format!("limit {said:?}")), "{error}");
    }
}

#[test]
fn a_docker_archive_is_read_as_leniently_as_docker_reads_it() {
    let diff_id = oci::digest(b"layer");
    let config = json!({"rootfs": {"diff_ids": [diff_id, diff_id]}, "config": {"Volumes": {"/data": null}}});
    let manifest = json!([{"Config": "c.json", "RepoTags": ["a:1", "b"], "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let files = [
        ("manifest.json".to_owned(), manifest.to_string().into_bytes()),
        ("c.json".to_owned(), config.to_string().into_bytes()),
        ("1/layer.tar".to_owned(), b"layer".to_vec()),
    ];
    let (_dir, unpacked) = archive(&files, &[("2/layer.tar", "../1/layer.tar")]);
    let packed = first(&unpacked).expect("an image");
    assert_eq!(packed.names, ["docker.io/library/a:1", "docker.io/library/b:latest"]);
    assert_eq!(packed.found.manifest.layers.len(), 2);
    assert_eq!(packed.found.digest, oci::digest(&packed.found.bytes));
    let Ok(oci::Document::Manifest(written)) = oci::Document::read(&packed.found.bytes) else { panic!("no manifest") };
    assert_eq!(*written, packed.found.manifest);

    let empty = json!([{"Config": "c.json", "RepoTags": null, "Layers": null}]);
    let files = [("manifest.json".to_owned(), empty.to_string().into_bytes()), ("c.json".to_owned(), b"{}".to_vec())];
    let packed = first(&archive(&files, &[]).1).expect("an image");
    assert!(packed.names.is_empty() && packed.found.manifest.layers.is_empty());
}
