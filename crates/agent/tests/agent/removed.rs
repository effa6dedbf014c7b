//! Records of removed pods.

use std::{fs, time::Duration};

use stanchion_agent::config::Remembered;
use stanchion_board::view::RemovedView;
use stanchion_pod::k8s_openapi::api::core::v1 as wire;
use stanchion_runtime::testing::Program;

use crate::{
    manifest::{pod, raw},
    node::Node,
};

/// Returns the pod's phase, its reason, and the exit codes of its containers.
fn end(removed: &RemovedView) -> (String, String, Vec<Option<i32>>) {
    let status = removed.pod.status.clone().unwrap_or_default();
    let code = |it: &wire::ContainerStatus| Some(it.state.as_ref()?.terminated.as_ref()?.exit_code);
    let codes = status.container_statuses.iter().flatten().map(code).collect();
    (status.phase.unwrap_or_default(), status.reason.unwrap_or_default(), codes)
}

// R-TERM-7, R-GAP-17.
#[tokio::test(start_paused = true)]
async fn how_a_removed_pod_ended_is_known_to_the_next_agent_too() {
    for (code, phase) in [(0, "Succeeded"), (143, "Failed")] {
        let mut node = Node::new();
        node.fake().program("app", Program::stops_in(Duration::ZERO, code));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        assert!(node.handle().removed().is_empty());
        node.remove("web.yaml");
        node.is_empty().await;
        let removed = node.handle().removed();
        assert_eq!(removed.len(), 1, "R-TERM-7: {removed:?}");
        assert_eq!(end(&removed[0]), (phase.to_owned(), "ManifestRemoved".to_owned(), vec![Some(code)]), "R-TERM-7");
        assert!(removed[0].manifest.ends_with("web.yaml"), "R-TERM-7: {}", removed[0].manifest);
        node.restart().await;
        assert_eq!(node.handle().removed(), removed, "R-TERM-7");
    }
}

// R-TERM-7.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_removed_while_no_agent_runs_and_one_that_never_ran_are_remembered() {
    let mut node = Node::new();
    node.fake().program("app", Program::stops_in(Duration::ZERO, 0));
    node.write("web.yaml", &pod("web", "app:1"));
    node.write("never.yaml", &pod("never", "absent:1"));
    node.start();
    node.shows("web Running", |node| node.status("web").phase.as_deref() == Some("Running")).await;
    node.stop().await;
    node.remove("web.yaml");
    node.start();
    node.shows("never", |node| node.pod("never").is_some()).await;
    node.remove("never.yaml");
    node.is_empty().await;
    let removed = node.handle().removed();
    let ends: Vec<_> = removed.iter().map(|it| (it.pod.metadata.name.clone().unwrap_or_default(), end(it))).collect();
    let ended = |name: &str| ends.iter().find(|(it, _)| it == name).map(|(_, end)| end.clone());
    let because = "ManifestRemoved".to_owned();
    assert_eq!(ended("web-node"), Some(("Succeeded".to_owned(), because.clone(), vec![Some(0)])), "R-TERM-7");
    assert_eq!(ended("never-node"), Some(("Failed".to_owned(), because, vec![None])), "R-TERM-7");
}

// R-TERM-7.
#[tokio::test(start_paused = true)]
async fn what_had_ended_before_stays_as_it_ended() {
    let mut node = Node::new();
    node.fake().program("app", Program::exits(Duration::from_secs(1), 7));
    node.write("job.yaml", &raw("job", "restartPolicy: Never\ncontainers: [{name: app, image: app:1}]\n"));
    node.start();
    node.shows("its end", |node| node.status("job").phase.as_deref() == Some("Failed")).await;
    node.remove("job.yaml");
    node.is_empty().await;
    let removed = node.handle().removed();
    assert_eq!(end(&removed[0]), ("Failed".to_owned(), String::new(), vec![Some(7)]), "R-TERM-7");
}

// R-TERM-7: an edit is no removal, and a record that cannot be written does not hinder a removal.
#[tokio::test(start_paused = true)]
async fn only_what_is_removed_is_remembered_as_far_as_it_can_be() {
    let mut node = Node::new();
    node.config.remembered = Remembered { most: 1, ..Remembered::default() };
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.write("web.yaml", &pod("web", "app:2"));
    node.runs(&[("web", &[("app", "app:2")])]).await;
    assert!(node.handle().removed().is_empty(), "it was edited");
    fs::write(node.config.state_dir.join("removed"), "in the way").expect("it can be written");
    node.remove("web.yaml");
    node.is_empty().await;
    assert!(node.handle().removed().is_empty());
}
