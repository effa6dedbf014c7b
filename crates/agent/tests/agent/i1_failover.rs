//! I1 when a backend is absent: another takes its pods only if failover is configured and none of their processes is
//! left.

use std::time::Duration;

use stanchion_agent::config::{DefaultBackend, Failover};
use stanchion_runtime::{
    ContainerState, ErrorKind, OnReturn, Runtime as _,
    testing::{FakeRuntime, Fault, Hold, Method, When},
};

use crate::{manifest::pod, node::Node};

/// Starts a node with two runtimes; `second` may take over from `first`, and `a` runs on `first`.
async fn two(on_return: OnReturn) -> Node {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.failover.insert("first".to_owned(), Failover { on_return, ..Failover::default() });
    node.write("a.yaml", &pod("a", "app:1"));
    node.start();
    node.runs(&[("a", &[("app", "app:1")])]).await;
    node
}

fn first(node: &Node) -> FakeRuntime {
    node.fake().clone()
}

fn second(node: &Node) -> FakeRuntime {
    node.fakes[1].1.clone()
}

/// Reboots the first runtime, so that nothing runs there, and makes it unavailable.
fn end_first(node: &Node) {
    first(node).reboot();
    first(node).set_available(false);
}

async fn runs_on(node: &Node, fake: &FakeRuntime, image: &str) {
    let runs = |fake: &FakeRuntime| {
        fake.inventory()
            .containers
            .iter()
            .any(|it| it.image.ends_with(image) && matches!(it.state, ContainerState::Running { .. }))
    };
    node.shows(&format!("{image} there"), |node| {
        runs(fake) && node.status("a").phase.as_deref() == Some("Running") && node.reason("a", "app") == "Running"
    })
    .await;
    node.check();
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_backend_is_gone_with_all_its_processes_runs_on_the_next() {
    for default in [DefaultBackend::Named("first".to_owned()), DefaultBackend::Auto] {
        let mut node = two(OnReturn::Stay).await;
        node.stop().await;
        node.config.default_backend = default;
        node.start();
        node.runs(&[("a", &[("app", "app:1")])]).await;
        end_first(&node);
        let gone = tokio::time::Instant::now();
        runs_on(&node, &second(&node), "app:1").await;
        assert!(gone.elapsed() >= Failover::default().after, "it may have been a restart of the daemon");
        assert_eq!(node.events("FailedOver").len(), 1);
        assert_eq!(node.pod("a").expect("it is shown").backend, "second");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_gone_at_the_start_of_the_node_is_replaced() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.failover.insert("first".to_owned(), Failover::default());
    node.fake().set_available(false);
    node.write("a.yaml", &pod("a", "app:1"));
    node.start();
    runs_on(&node, &second(&node), "app:1").await;
}

#[tokio::test(start_paused = true)]
async fn without_the_setting_pods_wait_for_their_backend() {
    let mut node = two(OnReturn::Stay).await;
    node.stop().await;
    node.failover.clear();
    node.start();
    node.runs(&[("a", &[("app", "app:1")])]).await;
    end_first(&node);
    node.settle().await;
    assert_eq!(second(&node).inventory().sandboxes, [], "I1");
    assert_eq!(node.status("a").reason.as_deref(), Some("BackendUnavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_a_process_left_waits_and_says_so() {
    let node = two(OnReturn::Stay).await;
    let uid = node.pod("a").expect("it is shown").pod.metadata.uid.clone().expect("a UID");
    node.show_process(&uid, true);
    first(&node).set_available(false);
    node.shows("why it waits", |node| {
        let message = node.status("a").message.unwrap_or_default();
        message.contains("(since 2026-01-01T") && message.contains("its processes there still run")
    })
    .await;
    node.settle().await;
    assert_eq!(second(&node).inventory().sandboxes, [], "I1");
    node.show_process(&uid, false);
    first(&node).reboot();
    runs_on(&node, &second(&node), "app:1").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_is_not_replaced() {
    let node = two(OnReturn::Stay).await;
    first(&node).reboot();
    let hold = Hold::new();
    Method::ALL.into_iter().for_each(|method| first(&node).fault(method, When::Always, Fault::Hang(hold.clone())));
    node.settle().await;
    assert_eq!(second(&node).inventory().sandboxes, [], "I1: it may do yet what it was told");
    first(&node).heal_all();
    Method::ALL.into_iter().for_each(|it| first(&node).fault(it, When::Always, Fault::fail(ErrorKind::Timeout)));
    hold.release();
    node.settle().await;
    assert_eq!(second(&node).inventory().sandboxes, [], "I1: it may do yet what it was told");
    first(&node).heal_all();
    runs_on(&node, &first(&node), "app:1").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_failed_over_stays_until_its_manifest_changes() {
    let mut node = two(OnReturn::Stay).await;
    end_first(&node);
    runs_on(&node, &second(&node), "app:1").await;
    node.restart().await;
    runs_on(&node, &second(&node), "app:1").await;
    first(&node).set_available(true);
    node.patiently("the dead remains to go", first(&node).until(|now| now.sandboxes.is_empty())).await;
    node.restart().await;
    node.settle().await;
    assert_eq!(first(&node).inventory().sandboxes, []);
    assert_eq!(node.app("a").map(|app| app.attempt), Some(0), "I3: it was not touched");
    node.write("a.yaml", &pod("a", "app:2"));
    runs_on(&node, &first(&node), "app:2").await;
    node.patiently("the end of the old", second(&node).until(|now| now.sandboxes.is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_returns_where_that_is_wanted() {
    for with_restart in [false, true] {
        let mut node = two(OnReturn::Migrate).await;
        end_first(&node);
        runs_on(&node, &second(&node), "app:1").await;
        if with_restart {
            node.stop().await;
        }
        first(&node).set_available(true);
        if with_restart {
            node.start();
        }
        runs_on(&node, &first(&node), "app:1").await;
        node.patiently("the end of the other", second(&node).until(|now| now.sandboxes.is_empty())).await;
        assert_eq!(node.events("Returning").len(), 1);
        node.settle().await;
        runs_on(&node, &first(&node), "app:1").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_while_a_pod_is_on_its_fallback_knows_where_it_belongs() {
    for on_return in [OnReturn::Migrate, OnReturn::Stay] {
        let mut node = two(on_return).await;
        node.stop().await;
        node.config.default_backend = DefaultBackend::Auto;
        node.start();
        end_first(&node);
        runs_on(&node, &second(&node), "app:1").await;
        node.restart().await;
        runs_on(&node, &second(&node), "app:1").await;
        first(&node).set_available(true);
        let mut image = "app:1";
        if on_return == OnReturn::Stay {
            node.settle().await;
            runs_on(&node, &second(&node), image).await;
            image = "app:2";
            node.write("a.yaml", &pod("a", image));
        }
        runs_on(&node, &first(&node), image).await;
        node.patiently("the end of the other", second(&node).until(|now| now.sandboxes.is_empty())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refuge_that_is_lost_too_is_left() {
    let mut node = two(OnReturn::Stay).await;
    node.stop().await;
    node.failover.insert("second".to_owned(), Failover::default());
    node.start();
    end_first(&node);
    runs_on(&node, &second(&node), "app:1").await;
    first(&node).set_available(true);
    node.settle().await;
    second(&node).reboot();
    second(&node).set_available(false);
    runs_on(&node, &first(&node), "app:1").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_may_be_done_or_names_its_backend_waits() {
    for line in ["restartPolicy: Never", "restartPolicy: OnFailure", "runtimeClassName: first"] {
        let node = two(OnReturn::Stay).await;
        node.write("b.yaml", &pod("b", "app:1").spec(line));
        node.shows("b to run", |node| node.app("b").is_some()).await;
        end_first(&node);
        runs_on(&node, &second(&node), "app:1").await;
        node.settle().await;
        assert_eq!(second(&node).sandboxes_of("b-node"), [], "{line}");
        assert_eq!(node.reason("b", "app"), "BackendUnavailable");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_moves_away_from_a_lost_backend() {
    let node = two(OnReturn::Stay).await;
    end_first(&node);
    node.write("a.yaml", &pod("a", "app:2").spec("runtimeClassName: second"));
    runs_on(&node, &second(&node), "app:2").await;
    first(&node).set_available(true);
    node.patiently("the dead remains to go", first(&node).until(|now| now.sandboxes.is_empty())).await;
    runs_on(&node, &second(&node), "app:2").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_removed_without_its_lost_backend_and_its_remains_when_that_returns() {
    let node = two(OnReturn::Stay).await;
    end_first(&node);
    node.remove("a.yaml");
    node.shows("a gone", |node| node.pod("a").is_none()).await;
    first(&node).set_available(true);
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn dead_remains_on_a_backend_that_returns_are_removed() {
    let node = two(OnReturn::Stay).await;
    end_first(&node);
    runs_on(&node, &second(&node), "app:1").await;
    first(&node).set_available(true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(first(&node).inventory().sandboxes, []);
    runs_on(&node, &second(&node), "app:1").await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_a_pod_has_left_does_not_hold_up_its_removal() {
    let node = two(OnReturn::Stay).await;
    node.write("a.yaml", &pod("a", "app:2").spec("runtimeClassName: second"));
    runs_on(&node, &second(&node), "app:2").await;
    node.patiently("the end of the old", first(&node).until(|now| now.sandboxes.is_empty())).await;
    Method::ALL.into_iter().for_each(|it| first(&node).fault(it, When::Always, Fault::fail(ErrorKind::Timeout)));
    node.settle().await;
    node.remove("a.yaml");
    node.shows("a gone", |node| node.pod("a").is_none()).await;
    assert_eq!(second(&node).inventory().sandboxes, [], "I6");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_processes_no_backend_knows_is_not_started_beside_them() {
    for with_restart in [false, true] {
        let mut node = Node::new();
        node.write("a.yaml", &pod("a", "app:1"));
        node.start();
        node.runs(&[("a", &[("app", "app:1")])]).await;
        let uid = node.pod("a").expect("it is shown").pod.metadata.uid.clone().expect("a UID");
        node.show_process(&uid, true);
        if with_restart {
            node.stop().await;
        }
        let id = node.fake().inventory().sandboxes[0].id.clone();
        node.fake().remove_sandbox(id).await.expect("somebody removes it");
        if with_restart {
            node.start();
        }
        node.shows("why it waits", |node| node.status("a").reason.as_deref() == Some("ProcessesLeft")).await;
        node.settle().await;
        assert_eq!(node.fake().inventory().sandboxes, [], "I1");
        node.show_process(&uid, false);
        node.runs(&[("a", &[("app", "app:1")])]).await;
    }
}
