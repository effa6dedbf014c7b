//! Waits keep their length when the wall clock is set: these tests set it back and ahead while the agent waits.

use std::time::Duration;

use stanchion_agent::config::{Failover, ImageGc};
use stanchion_runtime::{
    ErrorKind,
    testing::{Call, Fault, Method, Program, When},
};
use tokio::time::{Instant, sleep};

use crate::{
    manifest::{pod, raw},
    node::Node,
};

const SECOND: Duration = Duration::from_secs(1);
/// Hours that the wall clock is set ahead; negative: back.
const JUMPS: [i64; 2] = [-8, 8];

/// Returns when each call that `is_it` accepts was made, in seconds since `origin`.
fn times(node: &Node, origin: Instant, is_it: impl Fn(&Call) -> bool) -> Vec<u64> {
    let calls = node.fake().timed_calls().into_iter().filter(|(_, call)| is_it(call));
    calls.map(|(at, _)| at.saturating_duration_since(origin).as_secs()).collect()
}

fn is_start(call: &Call) -> bool {
    matches!(call, Call::StartContainer(_))
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_as_long_as_ever() {
    for (hours, restarts) in JUMPS.into_iter().flat_map(|hours| [(hours, false), (hours, true)]) {
        let mut node = Node::new();
        node.fake().program("app", Program::exits(SECOND, 1));
        node.write("web.yaml", &pod("web", "app:1"));
        let origin = Instant::now();
        node.start();
        // The container starts at 0, 1, 12, 33 and 74 s; the wait after that is 80 s.
        sleep(78 * SECOND).await;
        node.set_clock(hours);
        node.shows("the wait", |node| node.reason("web", "app") == "CrashLoopBackOff").await;
        if restarts {
            // A restarted agent knows the container's end only as a wall-clock time. An end in the future counts as
            // now; after an end long ago the back-off is over.
            node.restart().await;
        }
        sleep(85 * SECOND).await;
        node.set_clock(-hours);
        sleep(200 * SECOND).await;
        let starts = times(&node, origin, is_start);
        let expected: &[u64] = match (restarts, hours) {
            (false, _) => &[0, 1, 12, 33, 74, 155, 316],
            (true, ..0) => &[0, 1, 12, 33, 74, 158, 319],
            (true, _) => &[0, 1, 12, 33, 74, 78],
        };
        assert_eq!(
            starts.get(..expected.len()),
            Some(expected),
            "R-BCK-1: {hours} h, restarts: {restarts}: {starts:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_back_off_begins_anew_only_after_a_run_that_was_long() {
    for hours in JUMPS {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        let mut waits = Vec::new();
        for (attempt, runs) in [(0, 5), (1, 5), (2, 700), (3, 5)] {
            node.shows("the instance", |node| node.app("web").is_some_and(|app| app.attempt == attempt)).await;
            sleep(runs * SECOND).await;
            // The clock jumps while the container runs.
            node.set_clock(if attempt % 2 == 0 { hours } else { -hours });
            sleep(SECOND).await;
            let (ended, app) = (Instant::now(), node.app("web").expect("it runs"));
            node.fake().exit(&app.id, 1);
            node.shows("the next", |node| node.app("web").is_some_and(|app| app.attempt == attempt + 1)).await;
            waits.push(ended.elapsed().as_secs());
        }
        assert_eq!(waits, [0, 10, 0, 10], "R-BCK-2: {hours} h");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_pull_and_a_failed_sandbox_are_tried_again_as_soon_as_ever() {
    for hours in JUMPS {
        for method in [Method::PullImage, Method::CreateSandbox] {
            let mut node = Node::new();
            node.fake().fault(method, When::Always, Fault::fail(ErrorKind::NotFound));
            node.write("web.yaml", &pod("web", "app:1"));
            let origin = Instant::now();
            node.start();
            sleep(5 * SECOND).await;
            node.set_clock(hours);
            sleep(6 * SECOND).await;
            node.set_clock(-hours);
            sleep(50 * SECOND).await;
            let tries = times(&node, origin, |call| match method {
                Method::PullImage => matches!(call, Call::PullImage(_)),
                _ => matches!(call, Call::CreateSandbox(_)),
            });
            assert_eq!(tries, [0, 10, 30], "R-IMG-4, R-LOOP-3: {method:?}, {hours} h");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_is_tried_again_as_soon_as_ever() {
    for hours in JUMPS {
        let mut node = Node::new();
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.fake().fault(Method::StopContainer, When::Always, Fault::fail(ErrorKind::Other));
        node.remove("web.yaml");
        sleep(5 * SECOND).await;
        assert!(!node.events("FailedSync").is_empty(), "it cannot be stopped");
        node.set_clock(hours);
        node.fake().heal_all();
        let healed = Instant::now();
        node.is_empty().await;
        assert!(healed.elapsed() < 60 * SECOND, "{hours} h: {:?}", healed.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn probes_are_put_when_they_are_due() {
    let probe = "readinessProbe: {exec: {command: [ready]}, initialDelaySeconds: 20, periodSeconds: 5}";
    let spec = format!("containers:\n- name: app\n  image: app:1\n  {probe}");
    for (hours, restarts) in JUMPS.into_iter().flat_map(|hours| [(hours, false), (hours, true)]) {
        let mut node = Node::new();
        node.fake().exec_answer("app", &["ready"], 1, "");
        node.write("web.yaml", &raw("web", &spec));
        let origin = Instant::now();
        node.start();
        node.patiently("the start", node.fake().until_running("app")).await;
        sleep(2 * SECOND).await;
        node.set_clock(hours);
        if restarts {
            // The clock, set back, puts the container's start in the future: the new agent counts the start from its
            // first observation of the container.
            node.restart().await;
        }
        sleep(40 * SECOND).await;
        let asked = times(&node, origin, |call| matches!(call, Call::Exec(_)));
        match (restarts, hours) {
            (false, _) => assert_eq!(asked, [20, 25, 30, 35, 40], "R-PRB-4: {hours} h"),
            (true, ..0) => assert!((22..28).contains(&asked[0]), "R-PRB-4: {asked:?}"),
            (true, _) => assert!(asked[0] < 8, "R-PRB-3: {asked:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_comes_when_it_is_due_for_the_next_agent_too() {
    let spec = "activeDeadlineSeconds: 30\nterminationGracePeriodSeconds: 5\ncontainers: [{name: app, image: app:1}]";
    for (hours, restarts) in JUMPS.into_iter().flat_map(|hours| [(hours, false), (hours, true)]) {
        let mut node = Node::new();
        node.fake().program("app", Program::stubborn());
        node.write("web.yaml", &raw("web", spec));
        let origin = Instant::now();
        node.start();
        sleep(10 * SECOND).await;
        match restarts {
            true => {
                node.stop().await;
                node.set_clock(hours);
                node.start();
            }
            false => node.set_clock(hours),
        }
        node.shows("web Failed", |node| node.status("web").phase.as_deref() == Some("Failed")).await;
        let stops = times(&node, origin, |call| matches!(call, Call::StopContainer(..)));
        assert_eq!(stops, [30], "R-ADL-1, R-ADL-2: {hours} h, restarts: {restarts}");
        node.shows("its end", |node| node.app("web").is_none()).await;
        assert_eq!(origin.elapsed().as_secs(), 35, "R-TERM-1: {hours} h, restarts: {restarts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_measured_as_often_as_ever() {
    let limits = "resources: {limits: {ephemeral-storage: 8Mi}}";
    let spec = format!("containers:\n- name: app\n  image: app:1\n  {limits}");
    for hours in JUMPS {
        let mut node = Node::new();
        node.write("web.yaml", &raw("web", &spec));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        sleep(15 * SECOND).await;
        node.set_clock(hours);
        let (before, begun) = (node.fake().count(Method::DiskUsage), Instant::now());
        sleep(100 * SECOND).await;
        let measured = node.fake().count(Method::DiskUsage) - before;
        assert!((9..=11).contains(&measured), "R-EVI-1: {measured} times in {:?}, {hours} h", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_is_given_up_when_it_has_been_away_for_so_long() {
    for hours in JUMPS {
        let mut node = Node::with_runtimes(&["first", "second"]);
        node.failover.insert("first".to_owned(), Failover::default());
        node.write("a.yaml", &pod("a", "app:1"));
        node.start();
        node.runs(&[("a", &[("app", "app:1")])]).await;
        node.fake().reboot();
        node.fake().set_available(false);
        let gone = Instant::now();
        sleep(Failover::default().after / 2).await;
        node.set_clock(hours);
        node.patiently("it on the second", node.fakes[1].1.until_running("app")).await;
        let (took, after) = (gone.elapsed(), Failover::default().after);
        assert!(took >= after && took < after + 30 * SECOND, "{hours} h: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_removed_and_what_was_brought_keep_their_age() {
    for hours in JUMPS {
        let mut node = Node::new();
        node.config.remembered.age = 3600 * SECOND;
        let age = Some(2 * 3600 * SECOND);
        node.config.image_gc = ImageGc { thresholds: None, maximum_age: age, ..ImageGc::default() };
        node.write("web.yaml", &pod("web", "app:1"));
        node.start();
        node.runs(&[("web", &[("app", "app:1")])]).await;
        node.remove("web.yaml");
        node.is_empty().await;
        sleep(600 * SECOND).await;
        node.stop().await;
        node.set_clock(hours);
        node.start();
        sleep(2400 * SECOND).await;
        assert_eq!(node.handle().removed().len(), 1, "R-TERM-7: {hours} h");
        sleep(1200 * SECOND).await;
        assert_eq!(node.handle().removed().len(), 0, "R-TERM-7: {hours} h");
        let is_here = |node: &Node| node.fake().images().iter().any(|image| image.ends_with("app:1"));
        assert!(is_here(&node), "R-IMG-11: {hours} h");
        sleep(3 * 3600 * SECOND).await;
        assert!(!is_here(&node), "R-IMG-11: {hours} h");
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_sandbox_is_the_newest_whatever_the_clock_said() {
    let mut node = Node::new();
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.set_clock(-8);
    node.fake().reboot();
    node.runs(&[("web", &[("app", "app:1")])]).await;
    node.settle().await;
    let app = node.app("web").expect("it runs");
    node.restart().await;
    node.settle().await;
    assert_eq!(node.app("web").map(|app| app.id), Some(app.id), "I3");
}

#[tokio::test(start_paused = true)]
async fn the_next_try_is_shown_by_the_clock_as_it_is() {
    let mut node = Node::new();
    node.fake().unpublish("docker.io/library/app:1");
    node.write("web.yaml", &pod("web", "app:1"));
    node.start();
    sleep(35 * SECOND).await;
    node.set_clock(-8);
    let next_try = |node: &Node| node.pod("web")?.containers.first()?.next_try;
    // The next failed pull sets `next_try` by the new wall-clock time.
    sleep(40 * SECOND).await;
    let left = next_try(&node).map(|at| at.duration_since(node.clock.now()).as_secs());
    assert!(left.is_some_and(|left| (0..=80).contains(&left)), "{left:?}");
}
