//! Manifest sources: paths of all kinds, several sources, renamed files, and files with any content.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use stanchion_agent::config::SourceConfig;
use stanchion_runtime::testing::{Call, Method};

use crate::{manifest::pod, node::Node};

const WEB: &[(&str, &[(&str, &str)])] = &[("web", &[("app", "app:1")])];

/// Makes a node whose only source is this path below its directory of manifests.
fn with_source(path: &str) -> Node {
    let mut node = Node::new();
    node.config.sources = vec![SourceConfig::from(PathBuf::from(format!("{}{path}", node.manifests().display())))];
    node
}

fn pipe(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe can be made");
}

fn problem(node: &Node, file: &str) -> String {
    node.file(file).and_then(|file| file.problems.first().map(ToString::to_string)).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_path_is_taken_as_it_is() {
    // R-SRC-2, R-FILE-7.
    for path in ["/", "/[a]*?\\ {b}"] {
        let mut node = with_source(path);
        let directory = PathBuf::from(format!("{}{path}", node.manifests().display()));
        fs::create_dir_all(&directory).expect("it can be made");
        fs::write(directory.join("web.yaml"), pod("web", "app:1").to_string()).expect("it can be written");
        node.start();
        node.runs(WEB).await;
        fs::remove_file(directory.join("web.yaml")).expect("it is there");
        node.is_empty().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_file_may_be_a_source() {
    let mut node = with_source("/one.yaml");
    node.write("one.yaml", &pod("web", "app:1"));
    node.write("other.yaml", &pod("other", "app:2"));
    node.start();
    node.runs(WEB).await;
    let before = node.app("web").map(|app| app.id);
    node.write("one.yaml", &"kind: [");
    node.shows("the problem", |node| !problem(node, "one.yaml").is_empty()).await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), before, "R-FILE-20");
    node.write("one.yaml", &pod("web", "app:3"));
    node.runs(&[("web", &[("app", "app:3")])]).await;
    node.remove("one.yaml");
    node.settle().await;
    assert!(node.app("web").is_some(), "R-FILE-8: a source that is not there is not empty");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_stops_nothing() {
    let mut node = with_source("/sub");
    let (sub, away) = (node.manifests().join("sub"), node.manifests().with_extension("away"));
    fs::create_dir(&sub).expect("it can be made");
    fs::write(sub.join("web.yaml"), pod("web", "app:1").to_string()).expect("it can be written");
    node.start();
    node.runs(WEB).await;
    let before = node.app("web").map(|app| app.id);
    let error = |node: &Node| node.handle().board.sources()[0].error.clone().unwrap_or_default();
    fs::rename(node.manifests(), &away).expect("it can be renamed");
    for (what, rule) in
        [("cannot be read: Not a directory", "R-FILE-9"), ("is neither a directory nor a file", "R-FILE-10")]
    {
        match rule {
            "R-FILE-9" => fs::write(node.manifests(), "").expect("a file in its place"),
            _ => {
                fs::remove_file(node.manifests()).expect("it is there");
                fs::create_dir(node.manifests()).expect("it can be made");
                pipe(&sub);
            }
        }
        node.shows(what, |node| error(node).contains(what)).await;
        node.settle().await;
        assert_eq!(node.app("web").map(|app| app.id), before, "{rule}");
    }
    fs::remove_dir_all(node.manifests()).expect("it is there");
    fs::rename(&away, node.manifests()).expect("it can be renamed");
    node.shows("the return", |node| error(node).is_empty()).await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), before, "R-INOT-7");
}

#[tokio::test(start_paused = true)]
async fn another_directory_that_is_empty_stops_nothing_until_it_is_meant() {
    let error = |node: &Node| {
        let first = node.handle().board.sources().into_iter().next();
        first.and_then(|source| source.error).unwrap_or_default()
    };
    for is_restarted in [false, true] {
        let mut node = Node::new();
        let (manifests, away) = (node.manifests(), node.manifests().with_extension("away"));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(WEB).await;
        let before = node.app("web").map(|app| app.id);
        // As after an unmount: another directory appears at the path, with no manifest in it.
        let exchange = || {
            fs::rename(&manifests, &away).expect("it can be renamed");
            fs::create_dir(&manifests).expect("it can be made");
            fs::create_dir(manifests.join("lost+found")).expect("it can be made");
        };
        if is_restarted {
            node.stop().await;
        }
        exchange();
        if is_restarted {
            node.start();
        }
        node.shows("the doubt", |node| error(node).contains("is not the directory that had the manifests")).await;
        node.settle().await;
        assert_eq!(node.app("web").map(|app| app.id), before, "R-FILE-22, restarted: {is_restarted}");
        // The directory comes back, and then loses its manifest: that is an order to remove the pod.
        fs::remove_dir_all(&manifests).expect("it is there");
        fs::rename(&away, &manifests).expect("it can be renamed");
        node.shows("the return", |node| error(node).is_empty()).await;
        assert_eq!(node.app("web").map(|app| app.id), before);
        node.remove("web.yaml");
        node.is_empty().await;

        // Another directory with manifests takes effect; an empty one only takes effect once it contains `.empty`.
        node.write("web.yaml", &pod("web", "app:1"));
        node.runs(WEB).await;
        fs::remove_dir_all(&away).unwrap_or_default();
        exchange();
        node.write("other.yaml", &pod("other", "app:2"));
        node.runs(&[("other", &[("app", "app:2")])]).await;
        fs::remove_dir_all(&away).expect("it is there");
        exchange();
        node.shows("the doubt", |node| !error(node).is_empty()).await;
        fs::write(manifests.join(".empty"), "").expect("written");
        node.is_empty().await;
        assert_eq!(error(&node), "");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stopped_before_every_source_has_spoken() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(WEB).await;
    node.stop().await;
    node.remove("web.yaml");
    let late = node.manifests().with_extension("late");
    node.config.sources.push(SourceConfig::from(late.clone()));
    node.start();
    node.settle().await;
    node.settle().await;
    assert!(node.app("web").is_some(), "R-SRC-4, R-RST-3");
    fs::create_dir(&late).expect("it can be made");
    // An empty directory has been read too.
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_sources_that_name_one_pod_the_first_counts() {
    let mut node = Node::new();
    let second = node.manifests().with_extension("second");
    fs::create_dir(&second).expect("it can be made");
    node.config.sources.push(SourceConfig::from(second.clone()));
    fs::write(second.join("a.yaml"), pod("web", "app:2").to_string()).expect("it can be written");
    node.write("b.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(WEB).await;
    node.shows("the conflict", |node| {
        let problems = node.handle().board.sources()[1].manifests.first().map(|it| it.problems.clone());
        problems.is_some_and(|it| it.first().is_some_and(|it| it.to_string().contains("b.yaml")))
    })
    .await;
    node.settle().await;
    assert_eq!(node.fake().count(Method::CreateContainer), 1, "R-MRG-6");
    node.remove("b.yaml");
    node.runs(&[("web", &[("app", "app:2")])]).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_change_a_pod_does_not_touch_it() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(WEB).await;
    let before = node.app("web").map(|app| app.id);
    let seen = |node: &Node| {
        let metadata = node.pod("web").expect("it is shown").pod.metadata.clone();
        let annotation = metadata.annotations.unwrap_or_default().remove("kubernetes.io/config.seen");
        (metadata.creation_timestamp.expect("R-ID-15").0.to_string(), annotation.expect("R-ID-8"))
    };
    let first = seen(&node);
    assert_eq!(first.0, first.1, "R-ID-15");
    node.settle().await;
    // The file is written unchanged, then with a comment, then under another name.
    for (file, text) in [("web.yaml", ""), ("web.yaml", "# a comment\n"), ("other.yaml", "")] {
        let text = format!("{text}{}", pod("web", "app:1"));
        fs::write(node.manifests().join(".new"), text).expect("it can be written");
        if file != "web.yaml" {
            fs::rename(node.manifests().join("web.yaml"), node.manifests().join(file)).expect("it can be renamed");
        }
        fs::rename(node.manifests().join(".new"), node.manifests().join(file)).expect("it can be renamed");
        node.settle().await;
        assert_eq!(node.app("web").map(|app| app.id), before, "R-CHG-8, R-MRG-3");
        assert_eq!(seen(&node), first, "R-MRG-7");
    }
    assert_eq!(node.fake().actions().iter().filter(|call| matches!(call, Call::StopContainer(..))).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_renamed_over_another_is_one_update() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(WEB).await;
    node.write("web.yaml", &pod("web", "app:2"));
    node.runs(&[("web", &[("app", "app:2")])]).await;
    node.settle().await;
    let made = node.fake().count(Method::CreateContainer);
    let stopped = node.fake().count(Method::StopContainer);
    assert_eq!((made, stopped), (2, 1), "R-INOT-4, R-INOT-1");
}

#[tokio::test(start_paused = true)]
async fn files_of_all_kinds_are_read_or_named() {
    let mut node = Node::new();
    let text = |name: &str| pod(name, "app:1").to_string();
    let directory = node.manifests();
    let outside = directory.with_extension("outside");
    let write = |file: &str, bytes: &[u8]| fs::write(directory.join(file), bytes).expect("it can be written");
    write("bom.yaml", format!("\u{feff}{}", text("bom")).as_bytes());
    write("crlf.yaml", text("crlf").replace('\n', "\r\n").as_bytes());
    write("no-end.yaml", text("no-end").trim_end().as_bytes());
    let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "json"}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}}"#;
    write("json.json", json.as_bytes());
    let big = format!("{}#{}\n", text("big"), "x".repeat((10 << 20) - 2 - text("big").len() - 1));
    write("big.yaml", big.as_bytes());
    fs::write(&outside, text("linked")).expect("it can be written");
    symlink(&outside, directory.join("linked.yaml")).expect("it can be linked");

    pipe(&directory.join("pipe.yaml"));
    drop(std::os::unix::net::UnixListener::bind(directory.join("socket.yaml")).expect("it can be bound"));
    symlink("nowhere", directory.join("dangling.yaml")).expect("it can be linked");
    symlink("loop.yaml", directory.join("loop.yaml")).expect("it can be linked");
    fs::create_dir(directory.join("directory.yaml")).expect("it can be made");
    write("empty.yaml", b"");
    write("too-big.yaml", &vec![b'#'; 10 << 20]);
    node.start();
    // R-FILE-14.
    let up: [(&str, &[(&str, &str)]); 6] =
        ["bom", "crlf", "no-end", "json", "big", "linked"].map(|name| (name, &[("app", "app:1")][..]));
    node.runs(&up).await;
    for (file, said) in [
        ("pipe.yaml", "is not a regular file"),
        ("socket.yaml", "is not a regular file"),
        ("dangling.yaml", "cannot be read: No such file or directory"),
        ("loop.yaml", "cannot be read: Too many levels of symbolic links"),
        ("empty.yaml", "empty"),
        ("too-big.yaml", "must be smaller than 10 MiB"),
    ] {
        assert!(problem(&node, file).contains(said), "R-FILE-6, R-FILE-12: {file}: {}", problem(&node, file));
    }
    assert!(node.file("directory.yaml").is_none(), "R-FILE-2");

    // A pipe replaces a manifest; nobody ever writes to it.
    let before = node.app("bom").map(|app| app.id);
    fs::remove_file(directory.join("bom.yaml")).expect("it is there");
    pipe(&directory.join("bom.yaml"));
    node.shows("the pipe", |node| problem(node, "bom.yaml").contains("is not a regular file")).await;
    node.settle().await;
    assert_eq!(node.app("bom").map(|app| app.id), before, "R-FILE-11");
}

fn with_uid(uid: &str, name: &str, image: &str) -> String {
    pod(name, image).to_string().replace("metadata:", &format!("metadata:\n  uid: {uid}"))
}

#[tokio::test(start_paused = true)]
async fn a_uid_that_a_pod_has_given_up_is_free() {
    let mut node = Node::new();
    node.write("a.yaml", &with_uid("u-1", "web", "app:1"));
    node.start();
    node.runs(WEB).await;
    node.write("a.yaml", &with_uid("u-2", "web", "app:3"));
    node.runs(&[("web", &[("app", "app:3")])]).await;
    node.write("b.yaml", &with_uid("u-1", "other", "app:2"));
    node.runs(&[("web", &[("app", "app:3")]), ("other", &[("app", "app:2")])]).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_pods_with_one_uid_the_second_is_refused() {
    let with_uid = |name, image| with_uid("u-1", name, image);
    let mut node = Node::new();
    node.write("a.yaml", &with_uid("web", "app:1"));
    node.write("b.yaml", &with_uid("other", "app:2"));
    node.start();
    node.runs(WEB).await;
    node.shows("the conflict", |node| problem(node, "b.yaml").contains("a.yaml")).await;
    assert!(problem(&node, "b.yaml").contains("metadata.uid"), "R-ID-6, R-MRG-3: {}", problem(&node, "b.yaml"));
    node.settle().await;
    node.runs(WEB).await;
    node.remove("a.yaml");
    node.runs(&[("other", &[("app", "app:2")])]).await;
    node.remove("b.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_unseen_is_found_within_seconds() {
    let mut node = Node::new();
    let below = |name: &str| node.manifests().with_file_name(name);
    let (lower, upper, work) = (below("lower"), below("upper"), below("work"));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory).expect("a directory");
    }
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let layers = std::ffi::CString::new(layers).expect("no NUL");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("overlay", node.manifests(), "overlay", flags, Some(layers.as_c_str())).expect("mounted");
    node.start();
    node.settle().await;
    let written = tokio::time::Instant::now();
    fs::write(lower.join("web.yaml"), pod("web", "app:1").to_string()).expect("it can be written");
    node.runs(WEB).await;
    let took = written.elapsed();
    assert!(took.as_secs() <= 3, "R-INOT-8: the kernel reports nothing of a lower layer: {took:?}");
}
