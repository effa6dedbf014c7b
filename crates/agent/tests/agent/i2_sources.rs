//! I2: a removed file stops its pods; a source that cannot be read stops nothing. Covers files of all kinds.

use std::{fs, os::unix::fs::symlink};

use stanchion_runtime::testing::Method;

use crate::{manifest::pod, node::Node};

async fn up() -> Node {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node
}

// R-FILE-8, R-INOT-3, R-FILE-1.
#[tokio::test(start_paused = true)]
async fn a_directory_that_is_away_stops_nothing_also_over_a_restart() {
    let mut node = up().await;
    let away = node.manifests().with_extension("away");
    fs::rename(node.manifests(), &away).expect("it can be renamed");
    node.shows("the error", |node| node.handle().board.sources()[0].error.is_some()).await;
    let app = node.app("web").expect("I2: it runs on");
    node.fake().exit(&app.id, 1);
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.restart().await;
    node.settle().await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    fs::rename(&away, node.manifests()).expect("it can be renamed");
    node.shows("the return", |node| node.handle().board.sources()[0].error.is_none()).await;
    node.settle().await;
    assert_eq!(node.fake().count(Method::StartContainer), 2, "only the crash was mended");
    node.remove("web.yaml");
    // R-SRC-5: a restarted agent, which has only the node's own sources, removes the pod.
    node.is_empty().await;
}

// R-FILE-14, R-FILE-13.
#[tokio::test(start_paused = true)]
async fn no_broken_content_stops_what_runs_also_over_a_restart() {
    let big = vec![b'#'; 10 << 20];
    let corpus: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("only comments", b"# nothing\n---\n"),
        ("binary", b"\x00\x01\x02\xff"),
        ("not UTF-8", b"apiVersion: v1\nkind: Pod\nmetadata: {name: \"\xff\"}\n"),
        ("another kind", b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n"),
        ("half written", b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n"),
        ("10 MiB", &big),
        ("a list with a broken item", b"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod}\n"),
        ("a broken document", b"apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: b}]}\n---\nkind: 1\n"),
    ];
    for (what, content) in corpus {
        let mut node = up().await;
        let app = node.app("web").expect("it runs");
        fs::write(node.manifests().join("web.yaml"), content).expect("it can be written");
        node.shows(what, |node| node.file("web.yaml").is_some_and(|file| !file.problems.is_empty())).await;
        node.restart().await;
        node.shows(what, |node| node.file("web.yaml").is_some_and(|file| !file.problems.is_empty())).await;
        node.settle().await;
        assert_eq!(node.app("web").map(|app| app.id), Some(app.id), "R-FILE-11: {what}");
        node.write("web.yaml", &pod("web", "app:2"));
        node.runs(&[("web", &[("app", "app:2")])]).await;
    }
}

// R-FILE-5, R-MRG-1.
#[tokio::test(start_paused = true)]
async fn of_two_files_that_name_one_pod_the_first_wins_and_the_other_is_shown() {
    let mut node = Node::new();
    node.write("b.yaml", &pod("web", "app:2"));
    node.write("a.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let loser = node.file("b.yaml").expect("it is shown");
    assert!(loser.pods.is_empty() && loser.problems[0].to_string().contains("a.yaml"), "R-MRG-2: {loser:?}");
    node.remove("a.yaml");
    node.runs(&[("web", &[("app", "app:2")])]).await;
}

// R-FILE-2, R-FILE-3, R-FILE-6, R-INOT-6, R-INOT-9.
#[tokio::test(start_paused = true)]
async fn links_leftovers_directories_and_renamed_pods() {
    let mut node = Node::new();
    let data = node.manifests().join("..data-1");
    fs::create_dir(&data).expect("it can be made");
    fs::write(data.join("web.yaml"), pod("web", "app:1").to_string()).expect("it can be written");
    symlink("..data-1", node.manifests().join("..data")).expect("it can be linked");
    symlink("..data/web.yaml", node.manifests().join("web.yaml")).expect("it can be linked");
    fs::create_dir(node.manifests().join("sub.yaml")).expect("it can be made");
    for leftover in [".hidden.yaml", "old.yaml~", "old.yaml.bak", "#old.yaml#"] {
        node.write(leftover, &pod("old", "app:9"));
    }
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let next = node.manifests().join("..data-2");
    fs::create_dir(&next).expect("it can be made");
    fs::write(next.join("web.yaml"), pod("renamed", "app:3").to_string()).expect("it can be written");
    symlink("..data-2", node.manifests().join("..new")).expect("it can be linked");
    fs::rename(node.manifests().join("..new"), node.manifests().join("..data")).expect("it can be renamed");
    node.runs(&[("renamed", &[("app", "app:3")])]).await;
}
