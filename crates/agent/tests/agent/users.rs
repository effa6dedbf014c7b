//! Pods with `hostUsers: false`.

use stanchion_runtime::{IdRange, testing::Call};

use crate::{manifest::raw, node::Node};

fn pod(name: &str) -> String {
    raw(name, "hostUsers: false\ncontainers: [{name: app, image: 'app:1'}]")
}

/// Returns the first ID of the user namespace in the latest CreateSandbox call for a pod.
fn users(node: &Node, name: &str) -> Option<u32> {
    let calls = node.fake().calls();
    let asked = calls.iter().rev().find_map(|call| match call {
        Call::CreateSandbox(config) if config.name.starts_with(name) => Some(config.user_namespace),
        _ => None,
    });
    asked.flatten().map(|IdRange { first, length }| {
        assert_eq!(length, 65_536, "R-SEC-14");
        first
    })
}

#[tokio::test(start_paused = true)]
async fn users_of_one_pod_are_no_others_and_stay_its_own() {
    let mut node = Node::new();
    node.write("a.yaml", &pod("a"));
    node.write("plain.yaml", &raw("plain", "containers: [{name: app, image: 'app:1'}]"));
    node.start();
    node.runs(&[("a", &[("app", "app:1")]), ("plain", &[("app", "app:1")])]).await;
    node.write("b.yaml", &pod("b"));
    node.runs(&[("a", &[("app", "app:1")]), ("b", &[("app", "app:1")]), ("plain", &[("app", "app:1")])]).await;
    assert_eq!((users(&node, "a"), users(&node, "b"), users(&node, "plain")), (Some(65_536), Some(131_072), None));

    node.fake().reboot();
    node.runs(&[("a", &[("app", "app:1")]), ("b", &[("app", "app:1")]), ("plain", &[("app", "app:1")])]).await;
    assert_eq!((users(&node, "a"), users(&node, "b")), (Some(65_536), Some(131_072)), "R-SEC-14: also after a reboot");
    node.remove("a.yaml");
    node.runs(&[("b", &[("app", "app:1")]), ("plain", &[("app", "app:1")])]).await;
    node.settle().await;
    node.write("c.yaml", &pod("c"));
    node.runs(&[("b", &[("app", "app:1")]), ("c", &[("app", "app:1")]), ("plain", &[("app", "app:1")])]).await;
    assert_eq!(users(&node, "c"), Some(65_536), "what is free is given again");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_is_named_with_a_way_out() {
    let mut node = Node::new();
    node.fake().set_user_namespaces(false);
    node.write("a.yaml", &pod("a"));
    node.start();
    node.shows("why it waits", |node| !node.events("FailedCreatePodSandBox").is_empty()).await;
    let said = node.events("FailedCreatePodSandBox").remove(0).message;
    let words = "can't set `spec.hostUsers: false`, runtime does not support user namespaces";
    for part in [words, "fake 1.0.0 here cannot", "runtimeClassName"] {
        assert!(said.contains(part), "R-SEC-14: {part:?} is not in {said}");
    }
    assert!(!node.fake().calls().iter().any(|call| matches!(call, Call::CreateSandbox(_))), "it is not asked");
    node.fake().set_user_namespaces(true);
    node.runs(&[("a", &[("app", "app:1")])]).await;
}

#[tokio::test(start_paused = true)]
async fn users_that_a_pod_will_not_have_are_named() {
    let mut node = Node::new();
    let over = "hostUsers: false\ncontainers: [{name: app, image: 'app:1', securityContext: {runAsUser: 65536}}]";
    node.write("a.yaml", &raw("a", over));
    node.start();
    node.shows("why it waits", |node| !node.events("FailedCreatePodSandBox").is_empty()).await;
    let said = node.events("FailedCreatePodSandBox").remove(0).message;
    let words = "runAsUser of container app: 65536 is beyond the 65536 users and groups";
    assert!(said.contains(words), "R-SEC-14: {said}");
    node.write("a.yaml", &raw("a", &over.replace("runAsUser: 65536", "runAsUser: 65535")));
    node.runs(&[("a", &[("app", "app:1")])]).await;
}
