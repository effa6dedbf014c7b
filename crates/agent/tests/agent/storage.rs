//! Limits and requests of `ephemeral-storage`.

use std::fs;

use stanchion_agent::handle::Request;
use stanchion_runtime::{
    ErrorKind,
    testing::{Call, Fault, Method, When},
};

use crate::{
    manifest::raw,
    node::{Node, key},
};

/// Returns a pod whose containers `app` and `other` have these limits, and share a volume.
fn limited(app: &str, other: &str) -> String {
    let container = |name: &str, limit: &str| {
        let resources = match limit {
            "" => String::new(),
            limit => format!(", resources: {{limits: {{ephemeral-storage: {limit}}}}}"),
        };
        format!("- {{name: {name}, image: app:1, volumeMounts: [{{name: v, mountPath: /v}}]{resources}}}\n")
    };
    let containers = container("app", app) + &container("other", other);
    raw("web", &format!("containers:\n{containers}volumes: [{{name: v, emptyDir: {{}}}}]\n"))
}

const BOTH: &[(&str, &[(&str, &str)])] = &[("web", &[("app", "app:1"), ("other", "app:1")])];

async fn is_evicted(node: &Node) -> String {
    node.shows("the eviction", |node| node.status("web").reason.as_deref() == Some("Evicted")).await;
    let status = node.status("web");
    assert_eq!(status.phase.as_deref(), Some("Failed"), "R-EVI-1");
    status.message.unwrap_or_default()
}

fn write(node: &Node, bytes: usize) {
    let app = node.app("web").expect("it runs").id;
    node.fake().write(&app, "/written", vec![1; bytes]);
}

fn measured(node: &Node) -> usize {
    node.fake().calls().iter().filter(|call| matches!(call, Call::DiskUsage(_))).count()
}

// R-EVI-1, R-GAP-16.
#[tokio::test(start_paused = true)]
async fn a_container_that_writes_more_than_it_may_has_its_pod_evicted_until_that_is_told_to_begin_anew() {
    let mut node = Node::new();
    node.write("web.yaml", &limited("1Mi", "8Mi"));
    node.start();
    node.runs(BOTH).await;
    write(&node, 900 << 10);
    node.settle().await;
    assert!(node.app("web").is_some(), "it may have that much");
    write(&node, 1100 << 10);
    assert_eq!(
        is_evicted(&node).await,
        "Container app exceeded its local ephemeral storage limit \"1Mi\". ",
        "R-EVI-1"
    );
    assert_eq!(node.events("Evicted").len(), 1, "R-EVI-1");
    node.restart().await;
    node.settle().await;
    assert!(node.app("web").is_none(), "also for an agent that did not see it");
    node.handle().request(Request::Restart { pod: key("web"), container: None }).await;
    node.runs(BOTH).await;
    node.settle().await;
    assert!(node.app("web").is_some(), "with a new writable layer");
}

#[tokio::test(start_paused = true)]
async fn logs_count_with_what_a_container_writes() {
    let mut node = Node::new();
    node.fake().set_log_files(true);
    node.write("web.yaml", &limited("1Mi", "8Mi"));
    node.start();
    node.runs(BOTH).await;
    write(&node, 600 << 10);
    let app = node.app("web").expect("it runs").id;
    let line = "x".repeat(16 << 10);
    (0..30).for_each(|_| node.fake().print(&app, &line));
    assert_eq!(
        is_evicted(&node).await,
        "Container app exceeded its local ephemeral storage limit \"1Mi\". ",
        "R-EVI-1"
    );
    node.settle().await;
    node.handle().request(Request::Restart { pod: key("web"), container: None }).await;
    node.runs(BOTH).await;
    write(&node, 600 << 10);
    node.settle().await;
    assert!(node.app("web").is_some(), "the logs of before are gone");
}

#[tokio::test(start_paused = true)]
async fn a_pod_has_what_its_containers_have_together_with_its_volumes() {
    let mut node = Node::new();
    node.write("web.yaml", &limited("1Mi", ""));
    node.start();
    node.runs(BOTH).await;
    let config = node.fake().container_config(&node.app("web").expect("it runs").id).expect("it was made");
    let volume = config.mounts.into_iter().find(|mount| mount.destination.as_os_str() == "/v").expect("it is mounted");
    write(&node, 700 << 10);
    node.settle().await;
    assert!(node.app("web").is_some(), "it may have that much");
    fs::write(volume.source.join("file"), vec![1; 700 << 10]).expect("it can be written");
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ";
    assert_eq!(is_evicted(&node).await, message, "R-EVI-1");
}

#[tokio::test(start_paused = true)]
async fn the_files_that_the_agent_has_in_containers_count_too() {
    for (place, message) in [
        ("/dev/termination-log", "Container app exceeded its local ephemeral storage limit \"1Mi\". "),
        ("/etc/hosts", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ("/etc/hostname", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ("/etc/resolv.conf", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ] {
        let mut node = Node::new();
        node.write("web.yaml", &limited("1Mi", "1Mi"));
        node.start();
        node.runs(BOTH).await;
        let config = node.fake().container_config(&node.app("web").expect("it runs").id).expect("it was made");
        let mount = config.mounts.into_iter().find(|mount| mount.destination.as_os_str() == place).expect(place);
        let size = if place.starts_with("/dev") { 1100 << 10 } else { 2200 << 10 };
        fs::write(mount.source, vec![1; size]).expect("it can be written");
        let evicted = is_evicted(&node).await;
        assert!(evicted.contains(message), "R-EVI-1, {place}: {evicted}");
        node.handle().request(Request::Restart { pod: key("web"), container: None }).await;
        node.runs(BOTH).await;
        node.settle().await;
        assert!(node.app("web").is_some(), "{place} begins anew too");
    }
}

#[tokio::test(start_paused = true)]
async fn only_pods_with_a_limit_are_measured() {
    let mut node = Node::new();
    node.write("web.yaml", &limited("", ""));
    node.start();
    node.runs(BOTH).await;
    node.settle().await;
    assert_eq!(measured(&node), 0, "R-EVI-1");
    node.write("web.yaml", &limited("1Gi", ""));
    node.shows("the limit", |node| {
        let pod = node.pod("web").expect("it is shown");
        let spec = pod.pod.spec.clone().expect("a spec");
        spec.containers.iter().any(|it| it.resources.as_ref().is_some_and(|it| it.limits.is_some()))
    })
    .await;
    node.settle().await;
    let before = measured(&node);
    node.settle().await;
    let each = (measured(&node) - before) / 2;
    assert!((5..=7).contains(&each), "each container every ten seconds of a minute, not {each} times");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_measured_evicts_nothing_and_is_told() {
    let mut node = Node::new();
    node.fake().fault(Method::DiskUsage, When::Nth(1), Fault::fail(ErrorKind::Timeout));
    node.fake().fault(Method::DiskUsage, When::Always, Fault::fail(ErrorKind::Unsupported));
    node.write("web.yaml", &limited("1Mi", ""));
    node.start();
    node.runs(BOTH).await;
    write(&node, 2 << 20);
    node.settle().await;
    assert!(node.app("web").is_some(), "nothing is known against it");
    assert_eq!(node.events("StorageNotMeasured").len(), 1, "but that is told");
}

// R-ADM-3.
#[tokio::test(start_paused = true)]
async fn a_pod_that_asks_for_more_disk_than_there_is_waits() {
    let mut node = Node::new();
    node.write("web.yaml", &limited("1Ei", ""));
    node.start();
    node.shows("it refused", |node| node.status("web").reason.as_deref() == Some("OutOfephemeral-storage")).await;
    assert!(node.app("web").is_none(), "R-ADM-3");
    node.write("web.yaml", &limited("1Mi", ""));
    node.runs(BOTH).await;
}
