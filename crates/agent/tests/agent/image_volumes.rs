//! Image volumes (`volumes[].image`): pulled and shown like container images, mounted by the runtime.

use std::{path::Path, time::Duration};

use stanchion_board::view::EventView;
use stanchion_runtime::{
    ContainerInfo, ContainerState, ErrorKind, Image, ImageMount, Mount, RegistryAuth,
    testing::{Call, Fault, Method, When},
};

use crate::{
    manifest::raw,
    node::Node,
    objects::{made, secret, write_secretly},
};

const DATA: &str = "docker.io/library/data:1";

/// Returns a pod `web`: container `app` mounts the image volume `v` with `more`, container `side` does not.
fn with(image: &str, more: &str) -> String {
    let mount = format!("volumeMounts: [{{name: v, mountPath: /v{more}}}]");
    raw(
        "web",
        &format!(
            "containers:\n- {{name: app, image: 'app:1', {mount}}}\n- {{name: side, image: 'app:2'}}\nvolumes: [{{name: v, \
             image: {{{image}}}}}]"
        ),
    )
}

const BOTH: &[(&str, &[(&str, &str)])] = &[("web", &[("app", "app:1"), ("side", "app:2")])];

/// Waits until `side` runs, whether `app` runs or not.
async fn side_runs(node: &Node) {
    let is_side = |it: &ContainerInfo| it.name == "side" && matches!(it.state, ContainerState::Running { .. });
    node.patiently("side", node.fake().until(|now| now.containers.iter().any(is_side))).await;
}

fn publish(node: &Node) -> Image {
    node.fake().publish(DATA, 1000)
}

/// Returns the mount of the volume `v` in `app`.
fn mounted(node: &Node) -> Mount {
    let mounts = made(node, "web").mounts;
    mounts.into_iter().find(|mount| mount.destination == Path::new("/v")).expect("it has the volume")
}

/// Returns the messages of events with this reason: those of the container `{name}`, or, if the name is empty, of the
/// pod itself.
fn said(node: &Node, reason: &str, of: &str) -> Vec<String> {
    let is_of = |event: &EventView| if of.is_empty() { event.field.is_empty() } else { event.field.contains(of) };
    node.events(reason).into_iter().filter(is_of).map(|event| event.message).collect()
}

fn pulls(node: &Node) -> usize {
    let is_data = |call: &Call| matches!(call, Call::PullImage(request) if request.reference == DATA);
    node.fake().calls().iter().filter(|call| is_data(call)).count()
}

fn message(node: &Node, container: &str) -> String {
    let statuses = node.status("web").container_statuses.unwrap_or_default();
    let status = statuses.into_iter().find(|status| status.name == container).expect("it is shown");
    status.state.and_then(|state| state.waiting?.message).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn an_image_volume_is_fetched_and_mounted_by_its_full_name() {
    let mut node = Node::new();
    publish(&node);
    let manifest = with("reference: 'data:1'", ", subPathExpr: './$(DIR)'");
    node.write("web.yaml", &manifest.replace("'app:1'", "'app:1', env: [{name: DIR, value: bin}]"));
    node.start();
    node.runs(BOTH).await;
    let image = ImageMount { reference: DATA.to_owned(), sub_path: "bin".into() };
    assert_eq!(mounted(&node), Mount::of_image(image, "/v"), "R-VOL-11");
    assert!(mounted(&node).read_only, "R-VOL-11");
    let pulled = said(&node, "Pulled", "");
    assert!(pulled.iter().any(|it| it.starts_with("Successfully pulled image \"data:1\" in ")), "{pulled:?}");

    // A container that ran once restarts with the local image, without a pull.
    let (app, asked) = (node.app("web").expect("it runs"), pulls(&node));
    node.fake().exit(&app.id, 1);
    node.patiently("the restart", async {
        while node.app("web").is_none_or(|now| now.id == app.id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(pulls(&node), asked);
    node.remove("web.yaml");
    node.is_empty().await;
}

#[tokio::test(start_paused = true)]
async fn policies_of_image_volumes_are_those_of_images() {
    for (image, expected) in [
        ("reference: 'data:1'", 0),
        ("reference: 'data:1', pullPolicy: Always", 1),
        ("reference: 'data:1', pullPolicy: Never", 0),
    ] {
        let mut node = Node::new();
        publish(&node);
        node.fake().add_image(DATA, 1000);
        node.write("web.yaml", &with(image, ""));
        node.start();
        node.runs(BOTH).await;
        assert_eq!(pulls(&node), expected, "R-VOL-11: {image}");
        let present = said(&node, "Pulled", "").iter().any(|it| it.contains("\"data:1\" already present"));
        assert_eq!(present, expected == 0, "R-IMG-3: {image}");
    }
    let mut node = Node::new();
    publish(&node);
    node.write("web.yaml", &with("reference: 'data:1', pullPolicy: Never", ""));
    node.start();
    node.shows("the reason", |node| node.reason("web", "app") == "ErrImageNeverPull").await;
    assert_eq!(pulls(&node), 0, "R-VOL-11");
}

#[tokio::test(start_paused = true)]
async fn an_image_volume_that_cannot_be_had_keeps_back_what_mounts_it() {
    let mut node = Node::new();
    node.write("web.yaml", &with("reference: 'data:1'", ""));
    node.start();
    side_runs(&node).await;
    node.shows("the failure", |node| node.reason("web", "app") == "ErrImagePull").await;
    assert!(message(&node, "app").contains(DATA), "I7: {}", message(&node, "app"));
    node.shows("the back-off", |node| node.reason("web", "app") == "ImagePullBackOff").await;
    assert!(message(&node, "app").starts_with("Back-off pulling image \"data:1\": ErrImagePull: "), "R-IMG-4");
    let keeps = said(&node, "Failed", "{app}");
    for expected in ["Error: ErrImagePull", "Error: ImagePullBackOff"] {
        assert!(keeps.iter().any(|it| it == expected), "{expected}: {keeps:?}");
    }
    assert_eq!(said(&node, "Failed", "{side}"), Vec::<String>::new(), "it does not mount it");
    assert_eq!(said(&node, "BackOff", ""), ["Back-off pulling image \"data:1\""], "R-IMG-4");
    publish(&node);
    node.runs(BOTH).await;
}

// R-WRK-8.
#[tokio::test(start_paused = true)]
async fn an_edit_of_the_reference_is_one_of_the_pod_and_waits_for_the_image() {
    let mut node = Node::new();
    publish(&node);
    node.write("web.yaml", &with("reference: 'data:1'", ""));
    node.start();
    node.runs(BOTH).await;
    let before = node.app("web").expect("it runs");
    node.write("web.yaml", &with("reference: 'data:2'", ""));
    node.shows("the back-off", |node| !said(node, "BackOff", "").is_empty()).await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), Some(before.id.clone()), "design 4.2: the old pod runs on");
    let (_, reason, why) = node.condition("web", "stanchion.dev/ManifestInForce").expect("it says why");
    assert!(reason == "ErrImagePull" && why.contains("data:2"), "I7: {reason}: {why}");
    node.fake().publish("docker.io/library/data:2", 1000);
    node.patiently("the new pod", async {
        while node.app("web").is_none_or(|app| app.id == before.id) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    node.runs(BOTH).await;
    let image = mounted(&node).image.map(|image| image.reference);
    assert_eq!(image.as_deref(), Some("docker.io/library/data:2"), "R-VOL-11");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_mount_images_is_named_with_a_way_out() {
    let mut node = Node::new();
    publish(&node);
    node.fake().set_image_mounts(false);
    node.write("web.yaml", &with("reference: 'data:1'", ""));
    node.start();
    side_runs(&node).await;
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerError").await;
    let why = message(&node, "app");
    for part in
        ["container app: fake 1.0.0 cannot mount image docker.io/library/data:1", "runtimeClassName", "emptyDir"]
    {
        assert!(why.contains(part), "R-VOL-11: {part:?} is not in {why}");
    }
    let asked = |call: &Call| matches!(call, Call::CreateContainer(config) if config.name == "app");
    assert!(!node.fake().calls().iter().any(asked), "it is not asked for what it cannot do");
}

#[tokio::test(start_paused = true)]
async fn what_an_image_does_not_have_is_said_where_the_container_waits() {
    let mut node = Node::new();
    publish(&node);
    node.write("web.yaml", &with("reference: 'data:1'", ", subPath: no/such"));
    node.start();
    node.shows("why it waits", |node| node.reason("web", "app") == "CreateContainerError").await;
    assert!(message(&node, "app").contains("no/such"), "R-VOL-11: {}", message(&node, "app"));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_goes_before_its_container_is_made_is_fetched_again() {
    let mut node = Node::new();
    publish(&node);
    node.fake().fault(Method::CreateContainer, When::Nth(1), Fault::fail(ErrorKind::NotFound));
    node.write("web.yaml", &with("reference: 'data:1', pullPolicy: Always", ""));
    node.start();
    node.runs(BOTH).await;
    assert_eq!(pulls(&node), 2, "R-VOL-11");
}

// R-IMG-9.
#[tokio::test(start_paused = true)]
async fn pull_secrets_are_for_image_volumes_too() {
    let mut node = Node::new();
    let auth =
        RegistryAuth { username: "robot".to_owned(), password: "hunter2".to_owned(), identity_token: String::new() };
    node.fake().publish_private("registry.example/data:1", 1000, auth);
    let config = r#"'{"auths": {"registry.example": {"username": "robot", "password": "hunter2"}}}'"#;
    let typed = secret("pull", &format!("{{.dockerconfigjson: {config}}}"));
    write_secretly(
        &node,
        "pull.yaml",
        &typed.replace("kind: Secret\n", "kind: Secret\ntype: kubernetes.io/dockerconfigjson\n"),
    );
    let manifest = with("reference: 'registry.example/data:1'", "");
    node.write("web.yaml", &manifest.replace("spec:\n", "spec:\n  imagePullSecrets: [{name: pull}]\n"));
    node.start();
    node.runs(BOTH).await;
}
