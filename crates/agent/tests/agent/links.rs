//! Symbolic links to container logs, for log shippers.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use crate::{manifest::pod, node::Node};

/// Returns the symbolic links of a directory and their targets, sorted by name.
fn links(directory: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(directory).expect("it is there").map(|entry| entry.expect("an entry"));
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).expect("it is a link");
        (entry.file_name().to_string_lossy().into_owned(), target)
    };
    let mut links: Vec<_> = entries.map(link).collect();
    links.sort();
    links
}

// R-LOG-2.
#[tokio::test(start_paused = true)]
async fn logs_are_linked_while_their_containers_are_there() {
    let mut node = Node::new();
    let directory = node.manifests().with_extension("links");
    let theirs = ("another's.log".to_owned(), PathBuf::from("/var/log/pods/x/0.log"));
    fs::create_dir(&directory).expect("it can be made");
    symlink(&theirs.1, directory.join(&theirs.0)).expect("it can be linked");
    symlink(node.config.log_dir.join("gone/app/0.log"), directory.join("left.log")).expect("it can be linked");
    node.config.log_links = Some(directory.clone());
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.settle().await;
    assert_eq!(
        links(&directory),
        std::slice::from_ref(&theirs),
        "what leads nowhere goes, and what has no log has no link"
    );

    let uid = node.pod("web").and_then(|view| view.pod.metadata.uid.clone()).expect("it has one");
    let log = node.config.log_dir.join(format!("default_web-node_{uid}/app/0.log"));
    fs::create_dir_all(log.parent().expect("it has one")).expect("it can be made");
    fs::write(&log, "").expect("it can be written");
    node.settle().await;
    let found = links(&directory);
    assert_eq!(found.len(), 2, "{found:?}");
    let (name, target) = &found[1];
    let hash = name.strip_prefix("web-node_default_app-").and_then(|rest| rest.strip_suffix(".log"));
    assert!(hash.is_some_and(|it| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit())), "{name}");
    assert_eq!(*target, log);
    node.restart().await;
    node.settle().await;
    assert_eq!(links(&directory), found);

    node.remove("web.yaml");
    node.is_empty().await;
    node.settle().await;
    assert_eq!(links(&directory), [theirs]);
}

// R-LOG-2.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_costs_its_own_link_only() {
    let mut node = Node::new();
    let directory = node.manifests().with_extension("links");
    node.config.log_links = Some(directory.clone());
    let names = ["a", "b", "c", "d"];
    for name in names {
        node.write(&format!("{name}.yaml"), &pod(name, "app:1"));
    }
    node.start();
    for name in names {
        node.shows("it runs", |node| node.app(name).is_some()).await;
        let uid = node.pod(name).and_then(|view| view.pod.metadata.uid.clone()).expect("it has one");
        let log = node.config.log_dir.join(format!("default_{name}-node_{uid}/app/0.log"));
        fs::create_dir_all(log.parent().expect("it has one")).expect("it can be made");
        fs::write(&log, "").expect("it can be written");
    }
    node.settle().await;
    let all: Vec<_> = links(&directory).into_iter().map(|(name, _)| name).collect();
    assert_eq!(all.len(), names.len(), "{all:?}");

    // A file takes the name of the first link.
    node.stop().await;
    for name in &all {
        fs::remove_file(directory.join(name)).expect("it is there");
    }
    fs::write(directory.join(&all[0]), "theirs").expect("it can be written");
    node.start();
    node.settle().await;
    let made: Vec<_> = all.iter().filter(|name| directory.join(name).is_symlink()).collect();
    assert_eq!(made, all[1..].iter().collect::<Vec<_>>());
    assert_eq!(fs::read(directory.join(&all[0])).expect("it is there"), b"theirs");

    fs::remove_file(directory.join(&all[0])).expect("it is there");
    node.settle().await;
    assert_eq!(links(&directory).len(), names.len());
}
