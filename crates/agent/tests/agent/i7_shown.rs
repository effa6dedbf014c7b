//! I7: the board shows what was true at the latest observation, and why a pod does not run.

use std::time::Duration;

use stanchion_agent::config::DefaultBackend;
use stanchion_runtime::{
    ErrorKind, Failover, Health, OnReturn,
    testing::{Fault, Method, Program, When},
};

use crate::{manifest::pod, node::Node};

/// Returns the message of the first waiting container.
fn message(node: &Node, pod: &str) -> String {
    let statuses = node.status(pod).container_statuses.unwrap_or_default();
    let waiting = statuses.into_iter().find_map(|status| status.state?.waiting);
    waiting.and_then(|waiting| waiting.message).unwrap_or_default()
}

async fn shows_reason(node: &Node, reason: &str) {
    node.shows(reason, |node| node.reason("web", "app") == reason).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_on_its_way_is_shown_with_its_progress() {
    let mut node = Node::new();
    node.fake().publish_slow("docker.io/library/app:slow", 1000, Duration::from_secs(40));
    node.write("web.yaml", &pod("web", "app:slow"));
    node.start();
    let half = |node: &Node| {
        let view = node.pod("web");
        view.and_then(|view| view.containers.first()?.pull.clone()).is_some_and(|pull| pull.received == 500)
    };
    node.shows("half of the image", half).await;
    assert_eq!(node.reason("web", "app"), "ContainerCreating", "R-CS-2");
    assert_eq!(node.status("web").phase.as_deref(), Some("Pending"), "R-PH-2");
    node.runs(&[("web", &[("app", "app:slow")])]).await;
    assert!(node.pod("web").is_some_and(|view| view.containers[0].pull.is_none()), "nothing is pulled any more");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_said_with_its_next_try_also_while_it_is_tried_again() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:none"));
    node.start();
    shows_reason(&node, "ImagePullBackOff").await;
    assert!(message(&node, "web").contains("no registry has it"), "R-IMG-4: {}", message(&node, "web"));
    let view = node.pod("web").expect("it is shown");
    let next_try = view.containers[0].next_try.expect("there is a next try");
    assert!(next_try > node.clock.now());
    let hold = node.fake().hang(Method::PullImage, When::Nth(1));
    node.patiently("the next try", hold.reached()).await;
    assert!(node.clock.now() >= next_try, "it was tried when it was said");
    shows_reason(&node, "ErrImagePull").await;
    assert!(message(&node, "web").contains("no registry has it"), "the last failure stands");
    node.fake().publish("docker.io/library/app:none", 1);
    hold.release();
    node.runs(&[("web", &[("app", "app:none")])]).await;
}

#[tokio::test(start_paused = true)]
async fn image_retries_wait_10_20_40_up_to_300_seconds() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:none"));
    node.start();
    node.patiently("the tries", async {
        while node.fake().count(Method::PullImage) < 8 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    })
    .await;
    let calls = node.fake().timed_calls();
    let pulls: Vec<_> =
        calls.iter().filter(|(_, call)| call.method() == Method::PullImage).map(|(at, _)| *at).collect();
    let waits: Vec<_> = pulls.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits[..7], [10, 20, 40, 80, 160, 300, 300], "R-IMG-4");
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_shown_with_the_last_end_and_the_count() {
    let mut node = Node::new();
    node.fake().program("app", Program::exits(Duration::from_secs(1), 3));
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    shows_reason(&node, "CrashLoopBackOff").await;
    let uid = node.pod("web").and_then(|view| view.pod.metadata.uid.clone()).expect("it has one");
    let expected = format!("back-off 10s restarting failed container=app pod=web-node_default({uid})");
    assert_eq!(message(&node, "web"), expected, "R-BCK-4");
    let status = node.status("web").container_statuses.expect("it has some").remove(0);
    assert_eq!(status.restart_count, 1);
    let last = status.last_state.and_then(|state| state.terminated).expect("R-CS-4: how it ended");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(node.status("web").phase.as_deref(), Some("Running"), "R-PH-4");
    let (ready, reason, _) = node.condition("web", "Ready").expect("it is there");
    assert_eq!((ready.as_str(), reason.as_str()), ("False", "ContainersNotReady"), "R-CND-5");
}

// R-SYNC-8, R-LOOP-3.
#[tokio::test(start_paused = true)]
async fn failures_of_the_runtime_have_their_reasons() {
    let table = [
        (Method::CreateSandbox, "ContainerCreating", "FailedCreatePodSandBox"),
        (Method::CreateContainer, "CreateContainerError", "Failed"),
        (Method::StartContainer, "RunContainerError", "Failed"),
        (Method::ListImages, "ImageInspectError", "InspectFailed"),
    ];
    for (method, reason, event) in table {
        let mut node = Node::new();
        node.fake().fault(method, When::Always, Fault::fail(ErrorKind::Other));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.shows(reason, |node| node.reason("web", "app") == reason && message(node, "web").contains("fault script"))
            .await;
        assert!(!node.events(event).is_empty(), "R-SYNC-12: {method}");
        node.fake().heal_all();
        node.runs(&[("web", &[("app", "app:1")])]).await;
    }
}

// R-GAP-6.
#[tokio::test(start_paused = true)]
async fn an_invalid_manifest_is_shown_at_its_file_and_at_the_pod_that_runs_on() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.write("web.yaml", &pod("web", "app:2").spec("contaners: []"));
    node.shows("the problem", |node| node.file("web.yaml").is_some_and(|file| !file.problems.is_empty())).await;
    let file = node.file("web.yaml").expect("it is shown");
    assert!(file.problems[0].to_string().contains("contaners"), "{:?}", file.problems);
    assert_eq!(file.pods, ["default/web-node"], "what is in force");
    node.shows("the condition", |node| node.condition("web", "stanchion.dev/ManifestInForce").is_some()).await;
    let (status, reason, message) = node.condition("web", "stanchion.dev/ManifestInForce").expect("it is there");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "ManifestInvalid"));
    assert!(message.contains("web.yaml") && message.contains("contaners"), "{message}");
    assert_eq!(node.reason("web", "app"), "Running", "R-GAP-1");
    assert_eq!(node.events("ManifestInvalid").len(), 1);
    node.write("web.yaml", &pod("web", "app:2"));
    node.runs(&[("web", &[("app", "app:2")])]).await;
    assert!(node.condition("web", "stanchion.dev/ManifestInForce").is_none());
    assert_eq!(node.events("ManifestValid").len(), 1);
}

// R-REJ-11, R-LOOP-6.
#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_is_shown_at_its_pods_and_for_itself() {
    let mut node = Node::new();
    node.fake().set_available(false);
    node.write("web.yaml", &pod("web", "app:1"));
    node.write("lost.yaml", &pod("lost", "app:1").spec("runtimeClassName: nowhere"));
    node.start();
    // Before the first observation has ended, the message says that the backend has not answered yet.
    shows_reason(&node, "BackendUnavailable").await;
    node.shows("why", |node| message(node, "web").contains("cannot be reached")).await;
    node.shows("the class", |node| node.reason("lost", "app") == "RuntimeClassUnknown").await;
    assert!(node.handle().board.backends()[0].error.is_some());
    node.fake().set_available(true);
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert!(node.handle().board.backends()[0].error.is_none());
    assert_eq!(node.events("BackendReady").len(), 1);
    node.remove("lost.yaml");
    node.shows("the end of what was nowhere", |node| node.pod("lost").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn auto_waits_for_a_backend_and_takes_the_first_that_answers() {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.config.default_backend = DefaultBackend::Auto;
    node.fakes.iter().for_each(|(_, fake)| fake.set_available(false));
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    shows_reason(&node, "BackendUnavailable").await;
    node.fakes[1].1.set_available(true);
    node.patiently("second", node.fakes[1].1.until_running("app")).await;
    node.fake().set_available(true);
    node.settle().await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(node.pod("web").map(|view| view.backend.clone()).as_deref(), Some("second"), "it stays");
    // A restarted agent finds the pod on its backend, whichever backend answers first.
    node.stop().await;
    node.fakes[1].1.fault(Method::List, When::Nth(1), Fault::Slow(Duration::from_secs(5)));
    node.start();
    node.settle().await;
    node.runs(&[("web", &[("app", "app:1")])]).await;
    assert_eq!(node.pod("web").map(|view| view.backend.clone()).as_deref(), Some("second"), "it stays");
    assert_eq!(node.fakes[1].1.count(Method::StopContainer), 0, "I3");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_backend_is_shown_also_while_it_is_away() {
    let mut node = Node::new();
    let away = Health {
        state: "asleep".to_owned(),
        message: "It sleeps until noon".to_owned(),
        failover: Some(Failover { on_return: OnReturn::Migrate }),
    };
    node.fake().set_health(away.clone());
    node.fake().set_available(false);
    node.start();
    let shown = |node: &Node| node.handle().board.backends().into_iter().next().unwrap_or_default();
    node.shows("its state", |node| shown(node).health == away && shown(node).error.is_some()).await;
    let told = node.events("BackendState");
    assert_eq!(told.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(), ["asleep: It sleeps until noon"]);
    let awake = Health { state: "awake".to_owned(), message: "It works".to_owned(), failover: None };
    node.fake().set_health(awake.clone());
    node.fake().set_available(true);
    node.shows("that it works", |node| shown(node).health == awake && shown(node).error.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn how_a_container_ended_is_known_after_its_sandbox_was_lost() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    let [sandbox] = &node.fake().sandboxes_of("web-node")[..] else { panic!("one sandbox: {node:?}") };
    node.fake().lose_sandbox(&sandbox.id, "its first process was killed");
    node.shows("a restart", |node| node.container("web", "app").restart_count == 1).await;
    node.settle().await;
    assert_eq!(node.fake().sandboxes_of("web-node").len(), 1, "the lost one is gone");
    let last = node.container("web", "app").last_state.and_then(|state| state.terminated).expect("R-CS-3");
    assert_eq!((last.exit_code, last.reason.as_deref()), (143, Some("Error")), "R-CS-3");
    node.write("web.yaml", &pod("web", "app:2"));
    node.runs(&[("web", &[("app", "app:2")])]).await;
    node.settle().await;
    assert_eq!(node.container("web", "app").last_state, Some(Default::default()), "another revision has no past");
}
