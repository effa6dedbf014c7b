//! Init containers and sidecars: order, failure, and the end (static-pods.md, 4.6, 4.8).

use std::time::Duration;

use stanchion_runtime::{
    ErrorKind,
    testing::{Fault, Method, Program, When},
};
use tokio::time::Instant;

use crate::{manifest::raw, node::Node};

const SECOND: Duration = Duration::from_secs(1);

const TWO: &str = "
initContainers:
- {name: first, image: app:1}
- {name: second, image: app:2}
containers:
- {name: app, image: app:3}
";

const SIDECARS: &str = "
terminationGracePeriodSeconds: 20
initContainers:
- {name: before, image: app:1}
- {name: side-a, image: app:1, restartPolicy: Always}
- {name: between, image: app:1}
- {name: side-b, image: app:1, restartPolicy: Always}
containers:
- {name: app, image: app:1}
";

fn names(list: &[(String, u64)]) -> Vec<&str> {
    list.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_another_before_the_others() {
    let mut node = Node::new();
    node.fake().program("first", Program::exits(5 * SECOND, 0));
    node.fake().program("second", Program::exits(3 * SECOND, 0));
    node.write("web.yaml", &raw("web", TWO));
    let origin = Instant::now();
    node.start();
    node.shows("first Running", |node| node.state("web", "first") == "Running").await;
    let states = ["second", "app"].map(|name| node.state("web", name));
    assert_eq!(states, ["PodInitializing", "PodInitializing"], "R-CS-2");
    let (status, reason, message) = node.condition("web", "Initialized").expect("R-CND-1");
    assert_eq!((&*status, &*reason), ("False", "ContainersNotInitialized"), "R-CND-4");
    assert_eq!(message, "containers with incomplete status: [first second]");
    assert_eq!(node.status("web").phase.as_deref(), Some("Pending"), "R-PH-2");
    assert_eq!(node.container("web", "first").started, Some(true));
    node.shows("web Running", |node| node.status("web").phase.as_deref() == Some("Running")).await;
    let starts = node.starts(origin);
    assert_eq!(names(&starts), ["first", "second", "app"], "R-INIT-1");
    assert!(starts[1].1 - starts[0].1 == 5 && starts[2].1 - starts[1].1 == 3, "{starts:?}");
    assert_eq!(node.state("web", "first"), "Completed 0");
    assert!(node.container("web", "first").ready, "R-CS-6");
    assert_eq!(node.condition("web", "Ready").map(|it| it.0).as_deref(), Some("True"));
    let fields: Vec<_> = node.events("Started").into_iter().map(|event| event.field).collect();
    assert_eq!(
        fields,
        ["spec.initContainers{first}", "spec.initContainers{second}", "spec.containers{app}"],
        "R-EVT-1"
    );
    // R-INIT-4, R-RST-1: finished init containers do not run again, neither when a container restarts nor under a
    // restarted agent.
    node.fake().exit(&node.app("web").expect("it runs").id, 1);
    node.settle().await;
    node.restart().await;
    node.settle().await;
    assert_eq!(names(&node.starts(origin)), ["first", "second", "app", "app"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_init_container_is_run_again_or_fails_the_pod() {
    let mut node = Node::new();
    node.fake().program("first", Program::exits(SECOND, 6));
    node.write("web.yaml", &raw("web", TWO));
    let origin = Instant::now();
    node.start();
    tokio::time::sleep(35 * SECOND).await;
    let starts = node.starts(origin);
    assert_eq!(names(&starts), ["first"; 4], "R-INIT-3");
    let waits: Vec<_> = starts.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert_eq!(waits, [1, 11, 21], "R-BCK-1");
    assert_eq!(node.fake().inventory().containers.len(), 1, "R-INIT-8: {node:?}");
    assert_eq!(node.status("web").phase.as_deref(), Some("Pending"), "R-INIT-3");
    assert_eq!(node.events("BackOff").len(), 1, "R-BCK-4");

    let mut node = Node::new();
    node.fake().program("first", Program::exits(SECOND, 6));
    node.write("web.yaml", &raw("web", &format!("restartPolicy: Never\n{TWO}")));
    node.start();
    node.settle().await;
    assert_eq!(node.fake().count(Method::StartContainer), 1, "R-INIT-3");
    assert_eq!(node.status("web").phase.as_deref(), Some("Failed"), "R-PH-1");
    assert_eq!(node.state("web", "first"), "Error 6");
    assert_eq!(node.state("web", "app"), "PodInitializing");
    assert_eq!(node.condition("web", "Ready").map(|it| it.1).as_deref(), Some("PodFailed"), "R-CND-5");
    assert_eq!(node.condition("web", "PodReadyToStartContainers").map(|it| it.0).as_deref(), Some("False"));
    assert_eq!(node.fake().count(Method::StopSandbox), 1, "R-WRK-2: nothing holds its network any more");
    node.restart().await;
    node.settle().await;
    assert_eq!(node.status("web").phase.as_deref(), Some("Failed"), "R-PH-6");
    assert_eq!(node.fake().count(Method::StartContainer), 1, "R-WRK-3");
}

#[tokio::test(start_paused = true)]
async fn in_a_new_sandbox_all_of_them_run_again() {
    let mut node = Node::new();
    node.fake().program("first", Program::exits(SECOND, 0));
    node.fake().program("second", Program::exits(SECOND, 0));
    node.write("web.yaml", &raw("web", TWO));
    let origin = Instant::now();
    node.start();
    node.runs(&[("web", &[("app", "app:3")])]).await;
    node.fake().reboot();
    node.runs(&[("web", &[("app", "app:3")])]).await;
    let starts = node.starts(origin);
    assert_eq!(names(&starts), ["first", "second", "app", "first", "second", "app"], "R-INIT-5, R-RST-7");
    assert_eq!(node.container("web", "first").restart_count, 1);
}

#[tokio::test(start_paused = true)]
async fn sidecars_start_in_order_and_stop_last_in_reverse() {
    let mut node = Node::new();
    node.fake().program("before", Program::exits(SECOND, 0));
    node.fake().program("between", Program::exits(SECOND, 0));
    for (name, seconds) in [("side-a", 1), ("side-b", 1), ("app", 2)] {
        node.fake().program(name, Program::stops_in(seconds * SECOND, 0));
    }
    node.write("web.yaml", &raw("web", SIDECARS));
    let origin = Instant::now();
    node.start();
    node.shows("web Ready", |node| node.condition("web", "Ready").is_some_and(|it| it.0 == "True")).await;
    assert_eq!(names(&node.starts(origin)), ["before", "side-a", "between", "side-b", "app"], "R-INIT-2");
    node.remove("web.yaml");
    let removed = Instant::now();
    node.is_empty().await;
    assert_eq!(
        node.stops(removed),
        [("app".to_owned(), 0), ("side-b".to_owned(), 2), ("side-a".to_owned(), 3)],
        "R-TERM-3"
    );
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_does_not_wait_longer_than_the_grace() {
    let mut node = Node::new();
    node.fake().program("before", Program::exits(SECOND, 0));
    node.fake().program("between", Program::exits(SECOND, 0));
    node.fake().program("app", Program::stubborn());
    node.write("web.yaml", &raw("web", SIDECARS));
    node.start();
    node.shows("web Ready", |node| node.condition("web", "Ready").is_some_and(|it| it.0 == "True")).await;
    node.remove("web.yaml");
    let removed = Instant::now();
    node.is_empty().await;
    let stops = node.stops(removed);
    assert_eq!(stops[0], ("app".to_owned(), 0));
    assert!(stops[1..].iter().all(|(_, at)| *at == 20), "R-TERM-3: {stops:?}");
}

#[tokio::test(start_paused = true)]
async fn sidecars_run_on_while_another_container_cannot_be_stopped() {
    let mut node = Node::new();
    node.fake().program("before", Program::exits(SECOND, 0));
    node.fake().program("between", Program::exits(SECOND, 0));
    node.write("web.yaml", &raw("web", SIDECARS));
    node.start();
    node.shows("web Ready", |node| node.condition("web", "Ready").is_some_and(|it| it.0 == "True")).await;
    node.fake().fault(Method::StopContainer, When::Nth(1), Fault::fail(ErrorKind::Other));
    node.remove("web.yaml");
    let removed = Instant::now();
    node.is_empty().await;
    assert_eq!(names(&node.stops(removed)), ["app", "app", "side-b", "side-a"], "R-TERM-3");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_restarts_while_the_pod_runs_and_ends_with_it() {
    let spec = "
restartPolicy: Never
initContainers:
- {name: side, image: app:1, restartPolicy: Always}
containers:
- {name: app, image: app:1}
";
    let mut node = Node::new();
    node.fake().program("side", Program::exits(2 * SECOND, 1));
    node.fake().program("app", Program::exits(20 * SECOND, 0));
    node.write("web.yaml", &raw("web", spec));
    let origin = Instant::now();
    node.start();
    node.shows("side again", |node| node.container("web", "side").restart_count == 1).await;
    assert_eq!(node.status("web").phase.as_deref(), Some("Running"), "R-RSP-2, R-PH-3");
    node.shows("web Succeeded", |node| node.status("web").phase.as_deref() == Some("Succeeded")).await;
    assert_eq!(node.state("web", "app"), "Completed 0", "R-INIT-7");
    node.settle().await;
    assert_eq!(names(&node.starts(origin)), ["side", "app", "side", "side"], "R-INIT-6, R-BCK-1");
    assert_eq!(node.condition("web", "Initialized").map(|it| it.1).as_deref(), Some("PodCompleted"), "R-CND-4");
}

#[tokio::test(start_paused = true)]
async fn an_update_waits_for_the_images_of_init_containers_too() {
    let mut node = Node::new();
    node.fake().program("first", Program::exits(SECOND, 0));
    node.fake().program("second", Program::exits(SECOND, 0));
    node.write("web.yaml", &raw("web", TWO));
    node.start();
    node.runs(&[("web", &[("app", "app:3")])]).await;
    node.write("web.yaml", &raw("web", &TWO.replace("app:1", "missing:1")));
    node.settle().await;
    assert!(node.app("web").is_some(), "design, decision 2");
    let (status, reason, _) = node.condition("web", "stanchion.dev/ManifestInForce").expect("it says so");
    assert_eq!((&*status, &*reason), ("False", "ErrImagePull"));
}
