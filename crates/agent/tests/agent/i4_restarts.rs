//! I4: containers that end are started again as `restartPolicy` and the back-off say (static-pods.md, 4.5).

use std::time::Duration;

use stanchion_runtime::{
    ContainerState, ErrorKind,
    testing::{Call, Fault, Method, Program, When},
};
use tokio::time::Instant;

use crate::{manifest::pod, node::Node};

/// Waits for `count` container starts and returns their times.
async fn starts(node: &Node, count: usize) -> Vec<Instant> {
    let many = |node: &Node| node.fake().count(Method::StartContainer) >= count;
    let wait = async {
        while !many(node) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    node.patiently("the restarts", wait).await;
    let calls = node.fake().timed_calls().into_iter();
    calls.filter(|(_, call)| matches!(call, Call::StartContainer(_))).map(|(at, _)| at).take(count).collect()
}

/// Returns the waits between each end and the next start, in ms, for runs that last `duration`.
fn waits(starts: &[Instant], duration: Duration) -> Vec<u128> {
    starts.windows(2).map(|pair| (pair[1] - pair[0] - duration).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn restarts_wait_0_10_20_40_up_to_300_seconds_exactly() {
    for code in [0, 1] {
        let mut node = Node::new();
        let duration = Duration::from_secs(3);
        node.fake().program("app", Program::exits(duration, code));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        let starts = starts(&node, 9).await;
        let expected = [0, 10, 20, 40, 80, 160, 300, 300].map(|seconds| seconds * 1000);
        let close = |(wait, expected): (&u128, &u128)| wait.abs_diff(*expected) <= 2;
        let waits = waits(&starts, duration);
        assert!(waits.iter().zip(&expected).all(close), "R-BCK-1, R-BCK-5, exit code {code}: {waits:?} ms");
    }
}

// R-GAP-18.
#[tokio::test(start_paused = true)]
async fn the_back_off_goes_on_over_a_restart_of_the_agent() {
    let mut node = Node::new();
    let duration = Duration::from_secs(1);
    node.fake().program("app", Program::exits(duration, 1));
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    starts(&node, 4).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    node.restart().await;
    let waits = waits(&starts(&node, 6).await, duration);
    assert!(waits[3].abs_diff(40_000) <= 2 && waits[4].abs_diff(80_000) <= 2, "decision 9: {waits:?} ms");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ran_ten_minutes_starts_over() {
    for (duration, expected) in [(601, [0, 0]), (599, [0, 10_000])] {
        let mut node = Node::new();
        let duration = Duration::from_secs(duration);
        node.fake().program("app", Program::exits(duration, 1));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        let waits = waits(&starts(&node, 3).await, duration);
        assert!(
            waits.iter().zip(&expected).all(|(wait, it)| wait.abs_diff(*it) <= 2),
            "R-BCK-2: {duration:?}: {waits:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn restart_policy_is_obeyed() {
    let table = [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ];
    for (policy, code, restarts, phase) in table {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1").spec(&format!("restartPolicy: {policy}")));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        let app = node.app("web").expect("it runs");
        node.fake().exit(&app.id, code);
        node.settle().await;
        assert_eq!(node.app("web").is_some(), restarts, "R-RSP-1: {policy}, exit code {code}");
        assert_eq!(node.status("web").phase.as_deref(), Some(phase), "R-PH-4: {policy}, exit code {code}");
        // R-RST-6: a restarted agent does not run a finished container again.
        node.restart().await;
        node.settle().await;
        assert_eq!(node.app("web").is_some(), restarts, "R-RST-6: {policy}, exit code {code}");
        assert_eq!(node.fake().count(Method::StartContainer), 1 + usize::from(restarts));
    }
}

#[tokio::test(start_paused = true)]
async fn one_container_ends_and_the_others_run_on() {
    let mut node = Node::new();
    node.fake().program("app", Program::exits(Duration::from_secs(1), 1));
    node.write("web.yaml", &pod("web", "app:1").with("side", "app:2"));
    node.start();
    starts(&node, 5).await;
    let side = node.fake().container("side").expect("it was started");
    assert_eq!(side.attempt, 0);
    assert!(matches!(side.state, ContainerState::Running { .. }), "{side:?}");
    let dead = node.fake().inventory().containers.iter().filter(|it| it.name == "app").count();
    assert!(dead <= 3, "R-GC-1: {dead} instances are kept");
}

// R-BCK-3.
#[tokio::test(start_paused = true)]
async fn an_edit_does_not_wait_for_the_back_off_of_what_it_replaces() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.fake().fault(Method::StartContainer, When::Always, Fault::fail(ErrorKind::Invalid));
    node.start();
    tokio::time::sleep(Duration::from_secs(400)).await;
    node.fake().heal_all();
    let (edited, tries) = (Instant::now(), node.fake().count(Method::StartContainer));
    node.write("web.yaml", &pod("web", "app:2"));
    starts(&node, tries + 1).await;
    assert!(edited.elapsed() < Duration::from_secs(25), "it took {:?}", edited.elapsed());
    node.runs(&[("web", &[("app", "app:2")])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_start_was_not_answered_is_not_killed() {
    for kind in [ErrorKind::Timeout, ErrorKind::Crashed, ErrorKind::Cancelled, ErrorKind::Unavailable] {
        let mut node = Node::new();
        node.fake().fault(Method::StartContainer, When::Nth(1), Fault::lose_answer(kind));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.settle().await;
        assert_eq!(node.fake().count(Method::CreateContainer), 1, "{kind:?}");
        assert_eq!(node.app("web").map(|app| app.attempt), Some(0), "{kind:?}");
        assert_eq!(node.reason("web", "app"), "Running");
    }
}

// R-RSP-3.
#[tokio::test(start_paused = true)]
async fn a_container_that_an_agent_left_unstarted_is_started_and_not_made_again() {
    for is_done in [false, true] {
        let mut node = Node::new();
        let hold = match is_done {
            false => node.fake().hang(Method::StartContainer, When::Nth(1)),
            true => node.fake().hang_after(Method::StartContainer, When::Nth(1)),
        };
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.patiently("the start", hold.reached()).await;
        node.restart().await;
        node.runs(&[("web", &[("app", "app:1")])]).await;
        drop(hold);
        node.settle().await;
        assert_eq!(node.fake().count(Method::CreateContainer), 1, "done: {is_done}");
        assert_eq!(node.fake().count(Method::RemoveContainer), 0, "done: {is_done}");
        assert_eq!(node.app("web").map(|app| app.attempt), Some(0), "done: {is_done}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_exists_already_and_cannot_be_seen_is_not_asked_for_all_the_time() {
    for method in [Method::CreateSandbox, Method::CreateContainer] {
        let mut node = Node::new();
        node.fake().fault(method, When::Always, Fault::fail(ErrorKind::AlreadyExists));
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.settle().await;
        let tries = node.fake().count(method);
        assert!((1..60).contains(&tries), "{method} was called {tries} times in a minute");
        node.fake().heal_all();
        node.runs(&[("web", &[("app", "app:1")])]).await;
    }
}
