use std::fs::File;

use serde_json::{Value, json};
use stanchion_sdk::oci::{digest, platform::architecture};

use super::*;

fn own() -> Value {
    json!({"os": "linux", "architecture": architecture()})
}

fn file(value: &Value) -> (Value, (String, Vec<u8>)) {
    let bytes = value.to_string().into_bytes();
    let digest = digest(&bytes);
    let name = format!("blobs/{}", digest.replace(':', "/"));
    (json!({"digest": digest, "size": bytes.len(), "platform": own()}), (name, bytes))
}

fn named(mut entry: Value) -> Value {
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "a:1"});
    entry
}

fn index(entries: &[Value]) -> (String, Vec<u8>) {
    ("index.json".to_owned(), json!({"manifests": entries}).to_string().into_bytes())
}

/// Reads an archive of these files.
fn contents(files: &[(String, Vec<u8>)]) -> Result<Contents> {
    let dir = tempfile::tempdir().expect("a directory");
    read(&archive(dir.path(), files), dir.path().to_owned())
}

fn archive(dir: &Path, files: &[(String, Vec<u8>)]) -> PathBuf {
    let path = dir.join("archive");
    let mut archive = tar::Builder::new(File::create(&path).expect("a file"));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, &**content).expect("written");
    }
    archive.finish().expect("written");
    path
}

#[test]
fn a_layout_is_followed_within_bounds_and_every_digest_is_compared() {
    let manifest = json!({"config": {"digest": digest(b"c"), "size": 1}, "layers": null});
    let (entry, manifest_file) = file(&manifest);
    let (nested, nested_file) = file(&json!({"manifests": [null, entry]}));
    for entries in [vec![named(entry.clone())], vec![named(nested)]] {
        let found = contents(&[manifest_file.clone(), nested_file.clone(), index(&entries)]).expect("an archive");
        let [DockerImage { config, repo_tags: Some(tags), layers: Some(layers) }] = &*found.images else {
            panic!("{found:?}");
        };
        assert!(config.starts_with("blobs/sha256/") && layers.is_empty() && !found.written);
        assert_eq!(tags, &["docker.io/library/a:1"]);
    }
    let changed = (manifest_file.0, [manifest_file.1.as_slice(), b" "].concat());
    let error = contents(&[changed, index(&[named(entry)])]).expect_err("another content").chain();
    assert!(error.contains("has another content"), "{error}");

    let digest = format!("sha256:{}", "7".repeat(64));
    let itself = json!({"digest": digest, "size": 10, "platform": own()});
    let itself_file =
        (format!("blobs/sha256/{}", "7".repeat(64)), json!({"manifests": [itself]}).to_string().into_bytes());
    let error = contents(&[itself_file, index(&[named(itself)])]).expect_err("no image").chain();
    assert!(error.contains("has another content"), "{error}");

    let (mut chain, mut files, mut last) = (manifest, Vec::new(), Value::Null);
    for _ in 0..100 {
        let (entry, file) = file(&chain);
        files.push(file);
        chain = json!({"manifests": [entry]});
        last = entry;
    }
    files.push(index(&[named(last)]));
    let error = contents(&files).expect_err("it is far").chain();
    assert!(error.contains("limit \"manifests and indexes of an image\""), "{error}");
}

#[test]
fn what_is_held_of_an_archive_has_a_bound() {
    let document = [b"{".as_slice(), &vec![b' '; 4 << 20 >> 1]].concat();
    let files: Vec<_> = (0..33).map(|number| (format!("blobs/{number}"), document.clone())).collect();
    let error = contents(&files).expect_err("there is too much of it").chain();
    assert!(error.contains("limit \"documents of an archive\""), "{error}");
}

#[test]
fn a_document_counts_as_often_as_it_is_read() {
    let padded = [json!({"manifests": []}).to_string().into_bytes(), vec![b' '; 3 << 20]].concat();
    let entry = json!({"digest": digest(&padded), "size": padded.len(), "platform": own()});
    let file = (format!("blobs/{}", digest(&padded).replace(':', "/")), padded);
    let named = |number: usize| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": format!("a:{number}")});
        entry
    };
    let error = contents(&[file, index(&(0..100).map(named).collect::<Vec<_>>())]).expect_err("no image").chain();
    assert!(error.contains("limit \"documents of an archive\""), "{error}");
}

#[test]
fn a_configuration_has_a_bound_wherever_the_archive_has_it() {
    let manifest = json!([{"Config": "sha256:1", "RepoTags": ["a:1"], "Layers": []}]).to_string().into_bytes();
    let manifest = ("manifest.json".to_owned(), manifest);
    let config = |size: usize| ("sha256:1".to_owned(), vec![b' '; size]);
    for (files, said) in [
        (vec![config(2), manifest.clone()], None),
        (vec![manifest.clone(), config((4 << 20) + 1)], Some("limit \"image configuration\"")),
        (vec![manifest.clone(), config(2), config((4 << 20) + 1)], Some("limit \"image configuration\"")),
        (vec![manifest], Some("the archive lacks sha256:1")),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = archive(dir.path(), &files);
        let contents = read(&path, dir.path().to_owned()).expect("it names an image");
        let (send, _receive) = mpsc::channel(100);
        let written = write(&path, &contents, &send);
        let error = written.as_ref().map_err(ToString::to_string);
        match said {
            None => assert!(error.is_ok(), "{error:?}"),
            Some(said) => assert!(error.as_ref().is_err_and(|error| error.contains(said)), "{said}: {error:?}"),
        }
    }
}
