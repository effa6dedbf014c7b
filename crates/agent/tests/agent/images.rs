//! Image pulls: their events and reasons, and pulls while the registry is away.

use std::fs;

use stanchion_runtime::{
    ErrorKind, RegistryAuth, Runtime as _,
    testing::{Fault, Method, When},
};

use crate::{
    manifest::raw,
    node::Node,
    objects::{secret, write_secretly},
};

fn said(node: &Node, reason: &str) -> Vec<String> {
    node.events(reason).into_iter().map(|event| event.message).collect()
}

fn with_policy(policy: &str, image: &str) -> String {
    raw("web", &format!("containers: [{{name: app, image: '{image}', imagePullPolicy: {policy}}}]"))
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_said_in_kubelets_words() {
    let mut node = Node::new();
    node.write("web.yaml", &with_policy("IfNotPresent", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(said(&node, "Pulling"), ["Pulling image \"app:1\""], "R-IMG-3");
    let pulled = said(&node, "Pulled");
    assert!(pulled[0].starts_with("Successfully pulled image \"app:1\" in "), "R-IMG-3: {pulled:?}");
    assert!(pulled[0].ends_with("Image size: 1000 bytes."), "R-IMG-3: {pulled:?}");
    node.write("other.yaml", &with_policy("IfNotPresent", "app:1").replace("name: web", "name: other"));
    node.shows("the other", |node| node.app("other").is_some()).await;
    let present = "Container image \"app:1\" already present on machine";
    assert!(said(&node, "Pulled").iter().any(|it| it.starts_with(present)), "R-IMG-3: {:?}", said(&node, "Pulled"));

    node.write("web.yaml", &with_policy("IfNotPresent", "app:none"));
    node.shows("the failure", |node| !said(node, "BackOff").is_empty()).await;
    assert!(said(&node, "Failed").iter().any(|it| it.starts_with("Failed to pull image \"app:none\": ")), "R-IMG-3");
    assert_eq!(said(&node, "BackOff"), ["Back-off pulling image \"app:none\""], "R-IMG-3");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_and_may_not_be_fetched_is_said() {
    let mut node = Node::new();
    node.write("web.yaml", &with_policy("Never", "app:1"));
    node.start();
    node.shows("the reason", |node| node.reason("web", "app") == "ErrImageNeverPull").await;
    assert_eq!(node.fake().count(Method::PullImage), 0, "R-IMG-2");
}

#[tokio::test(start_paused = true)]
async fn what_is_here_is_used_while_its_registry_is_away() {
    let mut node = Node::new();
    node.write("web.yaml", &with_policy("Always", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.fake().fault(Method::PullImage, When::Always, Fault::fail(ErrorKind::Unavailable));
    let asked = node.fake().count(Method::PullImage);
    // A new pod tries to pull, gets no answer, and runs with the local image.
    node.write("web.yaml", &format!("{}  restartPolicy: OnFailure\n", with_policy("Always", "app:1")));
    node.shows("that it is used", |node| !said(node, "PulledLocally").is_empty()).await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert!(node.fake().count(Method::PullImage) > asked, "R-IMG-2");
    assert!(said(&node, "PulledLocally")[0].contains("its registry cannot be reached"), "R-IMG-5");
    // A crashed container restarts without a pull.
    let (app, asked) = (node.app("web").expect("it runs"), node.fake().count(Method::PullImage));
    node.fake().exit(&app.id, 1);
    node.shows("the restart", |node| node.app("web").is_some_and(|now| now.id != app.id)).await;
    assert_eq!(node.fake().count(Method::PullImage), asked, "R-IMG-5");
}

#[tokio::test(start_paused = true)]
async fn what_an_archive_brought_and_somebody_removed_is_imported_again() {
    let mut node = Node::new();
    let preload = node.config.state_dir.join("preload");
    fs::create_dir_all(&preload).expect("made");
    fs::write(preload.join("packed.tar"), "it is not looked at").expect("written");
    node.fake().add_archive(preload.join("packed.tar"), &["docker.io/library/packed:1"]);
    node.config.preload = Some(preload);
    for policy in ["IfNotPresent", "Never"] {
        node.write("web.yaml", &with_policy(policy, "packed:1"));
        if policy == "IfNotPresent" {
            node.start();
        }
        node.runs(&[("web", &[("app", "packed:1")])]).await;
        let (app, imports) = (node.app("web").expect("it runs"), node.fake().count(Method::ImportImages));
        // Pruning does both to a container that has ended: it removes the image and the container.
        node.fake().remove_image("docker.io/library/packed:1".to_owned()).await.expect("removed");
        node.fake().lose_container(&app.id);
        node.shows("its next instance", |node| node.app("web").is_some_and(|now| now.id != app.id)).await;
        assert_eq!(node.fake().count(Method::ImportImages), imports + 1, "R-IMG-2");
    }
}

// R-IMG-9
#[tokio::test(start_paused = true)]
async fn what_was_said_to_each_of_the_credentials_is_shown() {
    let mut node = Node::new();
    let auth = |password: &str| RegistryAuth {
        username: "robot".to_owned(),
        password: password.to_owned(),
        ..RegistryAuth::default()
    };
    node.fake().publish_private("registry.example/app:1", 1000, auth("right"));
    let config = r#"'{"auths": {"registry.example": {"username": "robot", "password": "hunter2"}}}'"#;
    let typed = secret("pull", &format!("{{.dockerconfigjson: {config}}}"));
    let typed = typed.replace("kind: Secret\n", "kind: Secret\ntype: kubernetes.io/dockerconfigjson\n");
    write_secretly(&node, "pull.yaml", &typed);
    let spec = "imagePullSecrets: [{name: pull}]\ncontainers: [{name: app, image: 'registry.example/app:1'}]";
    node.write("web.yaml", &raw("web", spec));
    node.start();
    node.shows("the failure", |node| node.reason("web", "app") == "ErrImagePull").await;
    let waiting = node.container("web", "app").state.and_then(|state| state.waiting?.message).unwrap_or_default();
    let said = "with pull secret \"pull\": pull registry.example/app:1: these credentials are refused; with none of these: pull \
                registry.example/app:1: it wants credentials";
    assert!(waiting.contains(said), "I7: {waiting}");
    assert!(!waiting.contains("hunter2"), "I10");
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_no_pod_wants_any_more_is_cancelled() {
    let mut node = Node::new();
    let pulls = |node: &Node| node.fake().count(Method::PullImage);
    let hold = node.fake().hang(Method::PullImage, When::Always);
    for (file, name) in [("web.yaml", "web"), ("other.yaml", "other")] {
        node.write(file, &with_policy("IfNotPresent", "app:1").replace("name: web", &format!("name: {name}")));
    }
    node.start();
    node.shows("the pull", |node| hold.is_reached() && said(node, "Pulling").len() == 2).await;
    assert_eq!((pulls(&node), hold.hanging()), (1, 1), "one for both");
    // One pod is removed; the other still waits for the pull.
    node.remove("other.yaml");
    node.shows("its end", |node| node.pod("other").is_none()).await;
    assert_eq!(hold.hanging(), 1);
    // The first revision's sandbox still exists, and may need the first image until the second one is here.
    node.write("web.yaml", &with_policy("IfNotPresent", "app:2"));
    node.settle().await;
    assert_eq!(pulls(&node), 2, "the other is pulled");
    assert!(hold.hanging() > 0, "and goes on");
    node.remove("web.yaml");
    node.settle().await;
    assert_eq!(hold.hanging(), 0, "all have ended");
    // A pod that wants the image again starts a new pull.
    node.fake().heal(Method::PullImage);
    node.write("web.yaml", &with_policy("IfNotPresent", "app:1"));
    node.runs(&[("web", &[("app", "app:1")])]).await;
}
