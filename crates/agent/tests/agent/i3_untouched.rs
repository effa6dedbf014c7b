//! I3: running containers stay untouched when the agent, the runtime or the network goes away and comes back.

use std::time::Duration;

use stanchion_runtime::{
    ErrorKind,
    testing::{Call, FakeRuntime, Fault, Method, When},
};

use crate::{manifest::pod, node::Node};

const TWO: crate::node::Wanted<'_> = &[("one", &[("app", "app:1")]), ("two", &[("app", "app:2"), ("side", "app:3")])];

async fn two_pods() -> Node {
    let mut node = Node::new();
    node.write("one.yaml", &pod("one", "app:1"));
    node.write("two.yaml", &pod("two", "app:2").with("side", "app:3"));
    node.start();
    node.runs(TWO).await;
    node.settle().await;
    node.fake().forget_calls();
    node
}

fn actions(fake: &FakeRuntime) -> Vec<Call> {
    fake.actions()
}

// R-SYNC-11.
#[tokio::test(start_paused = true)]
async fn a_restart_of_the_agent_does_nothing_to_what_runs() {
    let mut node = two_pods().await;
    for _ in 0..3 {
        node.restart().await;
        node.runs(TWO).await;
        node.settle().await;
    }
    assert_eq!(actions(node.fake()), [], "R-RST-1");
}

// R-LOOP-6.
#[tokio::test(start_paused = true)]
async fn an_outage_of_the_runtime_does_nothing_to_what_runs() {
    for outage in [1, 40, 4000] {
        let node = two_pods().await;
        node.fake().set_available(false);
        node.shows("the outage", |node| node.status("one").reason.as_deref() == Some("BackendUnavailable")).await;
        tokio::time::sleep(Duration::from_secs(outage)).await;
        node.fake().set_available(true);
        node.shows("the return", |node| node.status("one").reason.is_none()).await;
        node.settle().await;
        assert_eq!(actions(node.fake()), [], "after {outage} s");
        node.runs(TWO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_during_an_outage_does_nothing_to_what_runs() {
    let mut node = two_pods().await;
    node.fake().set_available(false);
    node.restart().await;
    node.settle().await;
    assert_eq!(actions(node.fake()), []);
    node.fake().set_available(true);
    node.runs(TWO).await;
    node.settle().await;
    assert_eq!(actions(node.fake()), []);
}

// R-LOOP-4.
#[tokio::test(start_paused = true)]
async fn looks_that_fail_and_events_that_break_do_nothing_to_what_runs() {
    for kind in [ErrorKind::Other, ErrorKind::Timeout, ErrorKind::Crashed, ErrorKind::NotFound] {
        let node = two_pods().await;
        for call in 1..5 {
            node.fake().fault(Method::List, When::Nth(call), Fault::fail(kind));
        }
        node.fake().break_events();
        node.settle().await;
        assert_eq!(actions(node.fake()), [], "{kind:?}");
        node.runs(TWO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_at_one_pod_that_fails_is_followed_by_one_at_everything() {
    for failures in 1..4 {
        let node = two_pods().await;
        node.settle().await;
        for call in 1..=failures {
            node.fake().fault(Method::List, When::Nth(call), Fault::fail(ErrorKind::Unavailable));
        }
        // An event reports the container's end; the agent then lists this pod only.
        let app = node.app("one").expect("it runs");
        node.fake().exit(&app.id, 1);
        node.shows("the restart", |node| node.app("one").is_some_and(|now| now.id != app.id)).await;
        node.runs(TWO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_first_look_delays_and_does_not_forget() {
    let mut node = Node::new();
    node.fake().fault(Method::List, When::Nth(1), Fault::Slow(Duration::from_secs(7)));
    node.write("one.yaml", &pod("one", "app:1"));
    node.start();
    node.runs(&[("one", &[("app", "app:1")])]).await;
}

// R-LOOP-5, R-SRC-3.
#[tokio::test(start_paused = true)]
async fn what_changed_while_the_agent_was_away_is_put_right_when_it_starts() {
    let mut node = two_pods().await;
    let (one, side) = (node.app("one").expect("it runs"), node.fake().container("side").expect("it runs"));
    node.stop().await;
    node.fake().exit(&side.id, 3);
    node.remove("one.yaml");
    node.write("new.yaml", &pod("new", "app:4"));
    node.start();
    node.runs(&[("two", &[("app", "app:2"), ("side", "app:3")]), ("new", &[("app", "app:4")])]).await;
    let stopped = node.fake().actions().iter().any(|call| matches!(call, Call::StopContainer(id, _) if *id == one.id));
    assert!(stopped, "R-RST-8: the pod whose manifest went is stopped in order");
    let restarted = node.fake().container("side").expect("it runs again");
    assert_eq!(restarted.attempt, side.attempt + 1, "R-RST-8");
}

#[tokio::test(start_paused = true)]
async fn events_that_never_come_delay_a_restart_by_half_a_minute_at_most() {
    let node = two_pods().await;
    node.fake().mute_events(true);
    let app = node.app("one").expect("it runs");
    let crashed = tokio::time::Instant::now();
    node.fake().exit(&app.id, 1);
    node.runs(TWO).await;
    assert!(crashed.elapsed() <= Duration::from_secs(31), "R-LOOP-4: {:?}", crashed.elapsed());
}
