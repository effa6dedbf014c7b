//! Updates with little downtime (design 4.2): the old revision runs until the new one can, also under an agent that
//! never saw the old manifest.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use stanchion_runtime::testing::{Call, Method, When};

use crate::{manifest::pod, node::Node};

/// Starts a node on which `web` ran `app:1`, and then, while no agent ran, was changed to an image that no registry
/// has.
async fn waiting() -> Node {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.stop().await;
    node.write("web.yaml", &pod("web", "app:none"));
    node.start();
    node.shows("the missing image", |node| !node.events("Failed").is_empty()).await;
    node
}

fn records(node: &Node) -> Vec<PathBuf> {
    let pods = fs::read_dir(node.config.state_dir.join("pods")).expect("pods have files");
    let records = pods.map(|pod| pod.expect("an entry").path().join("running.json"));
    records.filter(|record| record.exists()).collect()
}

// R-WRK-8.
#[tokio::test(start_paused = true)]
async fn a_crash_of_the_old_container_is_mended_while_the_new_image_is_not_to_be_had() {
    for restarted in [false, true] {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        if restarted {
            node.stop().await;
        }
        node.write("web.yaml", &pod("web", "app:none"));
        if restarted {
            node.start();
        }
        node.shows("the missing image", |node| !node.events("Failed").is_empty()).await;
        let crashed = node.app("web").expect("the old container runs on");
        node.fake().exit(&crashed.id, 1);
        node.runs(&[("web", &[("app", "app:1")])]).await;
        assert_eq!(node.app("web").expect("it runs").attempt, crashed.attempt + 1, "restarted: {restarted}");
        node.settle().await;
        node.runs(&[("web", &[("app", "app:1")])]).await;
        let (status, reason, _) = node.condition("web", "stanchion.dev/ManifestInForce").expect("it says why");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "ErrImagePull"), "I7");
    }
}

// R-WRK-8, R-IMG-8.
#[tokio::test(start_paused = true)]
async fn a_crash_of_the_old_container_is_mended_while_the_new_image_is_pulled() {
    let mut node = Node::new();
    node.fake().publish_slow("docker.io/library/app:slow", 1000, Duration::from_secs(600));
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.stop().await;
    node.write("web.yaml", &pod("web", "app:slow"));
    node.start();
    node.shows("the pull", |node| !node.events("Pulling").is_empty()).await;
    let crashed = node.app("web").expect("the old container runs on");
    node.fake().exit(&crashed.id, 1);
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.runs(&[("web", &[("app", "app:slow")])]).await;
    node.settle().await;
    assert_eq!(records(&node).len(), 1, "the old record went with its pod");
    node.check();
}

#[tokio::test(start_paused = true)]
async fn the_old_pod_comes_back_after_a_reboot_when_the_new_image_is_not_to_be_had() {
    let mut node = waiting().await;
    node.stop().await;
    node.fake().reboot();
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.fake().publish("docker.io/library/app:none", 1000);
    node.runs(&[("web", &[("app", "app:none")])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_of_the_old_pod_is_replaced_and_its_files_stay() {
    let node = waiting().await;
    let [sandbox] = &node.fake().sandboxes_of("web-node")[..] else { panic!("one sandbox: {node:?}") };
    node.fake().lose_sandbox(&sandbox.id, "its namespace was removed");
    node.fake().until(|now| now.sandboxes.iter().all(|it| it.id != sandbox.id)).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.settle().await;
    assert_eq!(records(&node).len(), 1, "what runs is still written down");
    let uid = node.pod("web").and_then(|view| view.pod.metadata.uid.clone()).expect("it is shown");
    assert!(node.config.state_dir.join("pods").join(uid).join("etc/hosts").exists(), "its files are there");
    node.check();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_between_stop_and_start_of_an_update_leaves_the_old_pod_stopped() {
    for method in [Method::StopSandbox, Method::CreateSandbox, Method::CreateContainer] {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        let hold = node.fake().hang(method, When::Nth(1));
        node.write("web.yaml", &pod("web", "app:2"));
        node.patiently("the call", hold.reached()).await;
        node.restart().await;
        node.runs(&[("web", &[("app", "app:2")])]).await;
        node.settle().await;
        let image = |call| match call {
            Call::CreateContainer(config) => Some(config.image),
            _ => None,
        };
        let made: Vec<_> = node.fake().calls().into_iter().filter_map(image).collect();
        assert!(!made[1..].iter().any(|image| image.ends_with("app:1")), "killed in {method:?}: {made:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_while_it_removes_a_pod_leaves_it_stopped_for_a_newcomer_of_its_name() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let hold = node.fake().hang(Method::RemoveSandbox, When::Nth(1));
    node.remove("web.yaml");
    node.patiently("the call", hold.reached()).await;
    node.stop().await;
    node.write("web.yaml", &pod("web", "app:2"));
    node.start();
    node.runs(&[("web", &[("app", "app:2")])]).await;
    node.settle().await;
    assert_eq!(node.fake().count(Method::CreateContainer), 2, "the old one was started again");
}

#[tokio::test(start_paused = true)]
async fn an_edit_back_leaves_the_old_pod_untouched() {
    let node = waiting().await;
    let before = node.app("web").expect("it runs");
    node.write("web.yaml", &pod("web", "app:1"));
    node.shows("the manifest in force", |node| node.condition("web", "stanchion.dev/ManifestInForce").is_none()).await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), Some(before.id));
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_is_not_brought_back_for_a_newcomer_of_its_name() {
    let mut node = Node::new();
    node.fake().program("app", stanchion_runtime::testing::Program::stops_in(Duration::from_secs(20), 0));
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.remove("web.yaml");
    node.shows("the stop", |node| !node.events("Killing").is_empty()).await;
    node.write("web.yaml", &pod("web", "app:none"));
    node.shows("the missing image", |node| node.reason("web", "app") == "ImagePullBackOff").await;
    node.settle().await;
    assert!(node.app("web").is_none(), "I2: {node:?}");
}

#[tokio::test(start_paused = true)]
async fn records_are_for_root_only_and_go_with_the_pod() {
    let node = waiting().await;
    let records = records(&node);
    let [record] = &records[..] else { panic!("one record: {records:?}") };
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(record), 0o600, "I10");
    assert_eq!(mode(record.parent().expect("it has one")), 0o700, "I10");
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_used_leaves_the_old_pod_alone() {
    for content in [
        "",
        "{}",
        r#"{"namespace": "", "name": "", "boot": "", "backend": "first", "revision": "x", "manifest": "kind: Pod"}"#,
    ] {
        let mut node = waiting().await;
        node.stop().await;
        fs::write(&records(&node)[0], content).expect("it can be written");
        let before = node.app("web").expect("it runs");
        node.start();
        node.shows("the missing image", |node| !node.events("Failed").is_empty()).await;
        node.settle().await;
        assert_eq!(node.app("web").map(|app| app.id), Some(before.id));
        node.fake().publish("docker.io/library/app:none", 1000);
        node.runs(&[("web", &[("app", "app:none")])]).await;
    }
}

// R-WRK-8.
#[tokio::test(start_paused = true)]
async fn a_record_is_the_pods_own_and_that_of_an_earlier_version_can_be_read() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: \
                app, image: 'app:1', env: [{name: OWN, value: mine}]}]}}\n- {apiVersion: v1, kind: Pod, metadata: {name: other}, \
                spec: {containers: [{name: app, image: 'app:2', env: [{name: WORD, value: hush}]}]}}\n";
    for is_old in [false, true] {
        let mut node = Node::new();
        let utf16 = std::iter::once(0xfeff).chain(list.encode_utf16()).flat_map(u16::to_le_bytes);
        fs::write(node.manifests().join("both.yaml"), utf16.collect::<Vec<_>>()).expect("written");
        node.start();
        node.runs(&[("other", &[("app", "app:2")]), ("web", &[("app", "app:1")])]).await;
        node.stop().await;
        let own = records(&node).into_iter().find(|path| {
            let record = fs::read_to_string(path).expect("it can be read");
            record.contains("\"mine\"")
        });
        let own = own.expect("its environment is written down");
        let text = fs::read_to_string(&own).expect("it can be read");
        assert!(!text.contains("hush"), "I10: {text}");
        if is_old {
            let mut record: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            record.as_object_mut().expect("an object").remove("pod").expect("it is there");
            record["manifest"] = list.into();
            fs::write(&own, record.to_string()).expect("written");
        }
        node.write("both.yaml", &list.replace("app:1", "app:none"));
        node.start();
        node.shows("the missing image", |node| !node.events("Failed").is_empty()).await;
        let crashed = node.app("web").expect("the old container runs on");
        node.fake().exit(&crashed.id, 1);
        node.runs(&[("other", &[("app", "app:2")]), ("web", &[("app", "app:1")])]).await;
        node.write("both.yaml", &list);
        node.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_removed_pods_goes_after_others_have_started() {
    let mut node = Node::new();
    node.fake().slow_down(Duration::from_millis(100));
    for index in 0..12 {
        node.write(&format!("old{index}.yaml"), &pod(&format!("old{index}"), "app:1"));
    }
    node.start();
    node.shows("the old pods", |node| (0..12).all(|index| node.app(&format!("old{index}")).is_some())).await;
    node.settle().await;
    node.fake().forget_calls();
    for index in 0..12 {
        node.remove(&format!("old{index}.yaml"));
        node.write(&format!("new{index}.yaml"), &pod(&format!("new{index}"), "app:1"));
    }
    let new = |node: &Node| (0..12).all(|index| node.app(&format!("new{index}")).is_some());
    node.shows("the new pods", new).await;
    node.shows("the old pods gone", |node| (0..12).all(|index| node.pod(&format!("old{index}")).is_none())).await;
    let methods: Vec<_> = node.fake().actions().iter().map(Call::method).collect();
    let started = methods.iter().rposition(|method| *method == Method::StartContainer).expect("they started");
    let rest = methods.iter().position(|method| *method == Method::RemoveSandbox).expect("they were removed");
    let stopped = methods.iter().rposition(|method| *method == Method::StopContainer).expect("they were stopped");
    assert!(stopped < started && started < rest, "{methods:?}");
}
