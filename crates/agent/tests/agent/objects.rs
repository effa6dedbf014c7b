//! ConfigMaps and Secrets from the sources: pods that wait for them, and the effects of changes.

use std::{fs, os::unix::fs::PermissionsExt};

use stanchion_runtime::ContainerConfig;

use crate::{manifest::pod, node::Node};

pub fn config_map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n")
}

pub fn secret(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {data}\n")
}

/// Returns a pod whose container has the ConfigMap `settings` as its environment.
fn configured() -> String {
    format!("{}    envFrom: [{{configMapRef: {{name: settings}}}}]\n", pod("web", "app:1"))
}

/// Writes a file that only root can read (mode 0600).
pub fn write_secretly(node: &Node, file: &str, content: &str) {
    let path = node.manifests().join(format!(".{file}"));
    fs::write(&path, content).expect("it can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    fs::rename(path, node.manifests().join(file)).expect("it can be renamed");
}

/// Returns the configuration that the container `app` of a pod was created with.
pub fn made(node: &Node, pod: &str) -> ContainerConfig {
    let app = node.app(pod).expect("it runs");
    node.fake().container_config(&app.id).expect("the runtime has it")
}

fn variable(node: &Node, pod: &str, name: &str) -> Option<String> {
    made(node, pod).env.into_iter().find(|it| it.name == name).map(|it| it.value)
}

// R-GAP-14.
#[tokio::test(start_paused = true)]
async fn a_missing_config_map_holds_a_container_back_until_its_file_appears() {
    let mut node = Node::new();
    node.write("web.yaml", &configured());
    node.write("other.yaml", &pod("other", "app:1"));
    node.start();
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerConfigError").await;
    let statuses = node.status("web").container_statuses.expect("it has");
    let message = statuses[0].state.as_ref().and_then(|it| it.waiting.as_ref()?.message.clone());
    assert_eq!(message.as_deref(), Some("configmap \"settings\" not found"), "R-ENV-9");
    node.shows("the other run", |node| node.app("other").is_some()).await;
    node.write("settings.yaml", &config_map("settings", "{COLOR: blue}"));
    node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:1")])]).await;
    assert_eq!(variable(&node, "web", "COLOR").as_deref(), Some("blue"));
    assert_eq!(node.events("Failed").len(), 1, "{node:?}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_config_map_restarts_nothing_and_the_next_start_has_it() {
    let mut node = Node::new();
    node.write("all.yaml", &format!("{}---\n{}", config_map("settings", "{COLOR: blue}"), configured()));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let before = node.app("web").expect("it runs");
    node.write("all.yaml", &format!("{}---\n{}", config_map("settings", "{COLOR: red}"), configured()));
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), Some(before.id.clone()), "the revision is the pod's only");
    assert_eq!(variable(&node, "web", "COLOR").as_deref(), Some("blue"));
    node.fake().exit(&before.id, 1);
    node.fake().until(|now| now.containers.len() == 2).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(variable(&node, "web", "COLOR").as_deref(), Some("red"));
}

#[tokio::test(start_paused = true)]
async fn a_broken_file_of_objects_leaves_the_last_good_ones_in_force() {
    let mut node = Node::new();
    node.write("settings.yaml", &config_map("settings", "{COLOR: blue}"));
    node.start();
    node.shows("the map", |node| node.file("settings.yaml").is_some_and(|it| it.objects.len() == 1)).await;
    node.write("settings.yaml", &config_map("settings", "{COLOR: [x]}"));
    node.shows("the problem", |node| node.file("settings.yaml").is_some_and(|it| !it.problems.is_empty())).await;
    // An agent that never saw the good version uses it too.
    node.restart().await;
    node.write("web.yaml", &configured());
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(variable(&node, "web", "COLOR").as_deref(), Some("blue"), "design 4.2");
}

#[tokio::test(start_paused = true)]
async fn an_update_that_lacks_an_object_leaves_the_old_pod_running() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.write("web.yaml", &configured().replace("app:1", "app:2"));
    let reason = |node: &Node| node.condition("web", "stanchion.dev/ManifestInForce").map(|(_, reason, _)| reason);
    node.shows("what it lacks", |node| reason(node).as_deref() == Some("ObjectMissing")).await;
    let old = node.app("web").expect("the old one runs on");
    node.fake().exit(&old.id, 1);
    node.fake().until(|now| now.containers.len() == 2).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.write("settings.yaml", &config_map("settings", "{COLOR: blue}"));
    node.runs(&[("web", &[("app", "app:2")])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_must_be_roots_alone_and_is_never_shown() {
    let mut node = Node::new();
    let env = "    env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}]\n";
    node.write("keys.yaml", &secret("keys", "{token: hunter2}"));
    node.write("web.yaml", &format!("{}{env}", pod("web", "app:1")));
    node.start();
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerConfigError").await;
    let problems = node.file("keys.yaml").expect("it is shown").problems;
    assert!(problems[0].message.contains("its mode is 0644") && problems[0].message.contains("0600"), "{problems:?}");
    write_secretly(&node, "keys.yaml", &secret("keys", "{token: hunter2}"));
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(variable(&node, "web", "TOKEN").as_deref(), Some("hunter2"));
    let shown = format!(
        "{:?} {:?} {:?}",
        node.handle().board.pods(),
        node.handle().board.sources(),
        node.handle().events.all()
    );
    assert!(!shown.contains("hunter2"), "I10");
    assert!(node.file("keys.yaml").is_some_and(|file| file.objects == ["Secret default/keys"]));
    let kept = fs::read_dir(node.config.state_dir.join("manifests")).expect("they are kept").flatten();
    for file in kept.flat_map(|source| fs::read_dir(source.path()).expect("a directory")).flatten() {
        let mode = file.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "I10: {:?}", file.path());
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_objects_of_one_name_the_first_file_wins_and_the_other_says_so() {
    let mut node = Node::new();
    node.write("a.yaml", &config_map("settings", "{COLOR: blue}"));
    node.write("b.yaml", &config_map("settings", "{COLOR: red}"));
    node.write("web.yaml", &configured());
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(variable(&node, "web", "COLOR").as_deref(), Some("blue"), "R-MRG-2");
    let problems = node.file("b.yaml").expect("it is shown").problems;
    assert!(problems[0].message.contains("duplicate ConfigMap default/settings"), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_config_maps_are_nothing_special() {
    let mut node = Node::new();
    for index in 0..1000 {
        node.write(&format!("map-{index}.yaml"), &config_map(&format!("map-{index}"), "{COLOR: blue}"));
    }
    node.write("settings.yaml", &config_map("settings", &format!("{{BIG: {}}}", "x".repeat((1 << 20) - 3))));
    node.write("web.yaml", &configured());
    node.write("other.yaml", &pod("other", "app:1"));
    node.start();
    // A variable that is too long for the kernel is reported at its pod; the other pod runs.
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerConfigError").await;
    node.shows("the other run", |node| node.app("other").is_some()).await;
    let failed = node.events("Failed");
    assert!(failed[0].message.contains("environment variable BIG has 1048577 bytes"), "{failed:?}");
    node.write("settings.yaml", &config_map("settings", "{COLOR: blue}"));
    node.runs(&[("web", &[("app", "app:1")]), ("other", &[("app", "app:1")])]).await;
}
