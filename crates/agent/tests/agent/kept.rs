//! Copies of manifests that the agent keeps for its next start, where a copy is missing or old: that stops no running
//! pod (I3).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::{MountFlags, mount};

use crate::{manifest::pod, node::Node};

const BROKEN: &str = "kind: [";

/// Returns a pod with its own `metadata.uid`, so that its files stay in place when it is edited.
fn with_uid(image: &str, note: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, uid: u-1, annotations: {{note: \"{note}\"}}}}\nspec: {{containers: \
         [{{name: app, image: \"{image}\"}}]}}\n"
    )
}

fn has_problem(node: &Node) -> bool {
    node.file("web.yaml").is_some_and(|file| !file.problems.is_empty())
}

/// Reads the kept manifests, by path.
fn kept(node: &Node) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten().map(|it| it.path());
    let files =
        entries(&node.config.state_dir.join("manifests")).flat_map(|source| entries(&source).collect::<Vec<_>>());
    files.map(|path| (path.clone(), fs::read(path).expect("it can be read"))).collect()
}

/// Starts a pod, fills the disk with the agent's files up, and updates the pod. Returns the file that fills the disk.
async fn updated_on_a_full_disk(node: &mut Node) -> PathBuf {
    let state = node.config.state_dir.clone();
    mount("tmpfs", &state, "tmpfs", MountFlags::empty(), c"size=256k").expect("mounted");
    node.write("web.yaml", &with_uid("app:1", ""));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let fill = state.join("fill");
    let is_full = fs::write(&fill, vec![1; 1 << 20]);
    assert_eq!(is_full.expect_err("there is no room for it").kind(), std::io::ErrorKind::StorageFull);
    node.write("web.yaml", &with_uid("app:2", &"x".repeat(16 << 10)));
    node.runs(&[("web", &[("app", "app:2")])]).await;
    fill
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_could_not_be_kept_is_not_remembered_older() {
    let mut node = Node::new();
    let fill = updated_on_a_full_disk(&mut node).await;
    let before = node.app("web").map(|app| app.id);
    node.write("web.yaml", &BROKEN);
    node.shows("the problem", has_problem).await;
    node.restart().await;
    node.shows("the problem", has_problem).await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), before, "R-FILE-23");
    // A manifest that can be read takes effect, and is kept again.
    fs::remove_file(fill).expect("it is there");
    node.write("web.yaml", &with_uid("app:3", ""));
    node.runs(&[("web", &[("app", "app:3")])]).await;
    node.restart().await;
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_could_not_be_written_is_written_when_there_is_room() {
    let mut node = Node::new();
    let fill = updated_on_a_full_disk(&mut node).await;
    let path = node.config.state_dir.join("pods/u-1/running.json");
    let record = || fs::read_to_string(&path).expect("there is one");
    assert!(record().contains("app:1"), "it was written on a full disk");
    assert_eq!(node.events("FailedToKeep").len(), 1);
    fs::remove_file(fill).expect("it is there");
    // Nothing about the pod changes meanwhile.
    tokio::time::sleep(std::time::Duration::from_secs(120)).await;
    assert!(record().contains("app:2"), "I3, I1: the next agent does not know what runs");
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_recalled_manifest_never_replaces_a_newer_one_that_runs() {
    for has_record in [true, false] {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.settle().await;
        let old = kept(&node);
        assert!(!old.is_empty());
        node.write("web.yaml", &pod("web", "app:2"));
        node.runs(&[("web", &[("app", "app:2")])]).await;
        node.settle().await;
        let before = node.app("web").expect("it runs");
        node.write("web.yaml", &BROKEN);
        node.shows("the problem", has_problem).await;
        node.stop().await;
        for (path, content) in old {
            fs::write(path, content).expect("written");
        }
        let records = fs::read_dir(node.config.state_dir.join("pods")).expect("pods have files").flatten();
        for record in records.map(|pod| pod.path().join("running.json")).filter(|_| !has_record) {
            fs::remove_file(record).unwrap_or_default();
        }
        node.start();
        node.shows("the problem", has_problem).await;
        node.settle().await;
        assert_eq!(
            node.app("web").map(|app| app.id),
            Some(before.id.clone()),
            "R-FILE-23, with a record: {has_record}"
        );
        if has_record {
            // With the record, the agent knows the running revision and restarts its container.
            node.fake().exit(&before.id, 1);
            node.runs(&[("web", &[("app", "app:2")])]).await;
        }
        node.write("web.yaml", &pod("web", "app:3"));
        node.runs(&[("web", &[("app", "app:3")])]).await;
    }
}
