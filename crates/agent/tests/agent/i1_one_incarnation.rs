//! I1: a pod never runs twice at once, whichever call fails, loses its answer, or hangs.

use std::time::Duration;

use stanchion_agent::config::DefaultBackend;
use stanchion_runtime::{
    ErrorKind,
    testing::{Fault, Hold, Method, When},
};

use crate::{
    manifest::pod,
    node::{Node, Wanted},
};

/// A node on which at most one call hangs. When that call is reached, the agent is restarted.
struct Story {
    node: Node,
    hold: Option<Hold>,
    /// `true`: the agent is killed for the restart; `false`: it stops in order.
    is_killed: bool,
}

impl Story {
    /// Creates, crashes, updates and removes pods and loses a sandbox. Each step must end as if no call had failed.
    async fn tell(mut self) -> Node {
        self.node.write("a.yaml", &pod("a", "app:1"));
        self.node.write("b.yaml", &pod("b", "app:2").with("side", "app:3"));
        self.node.start();
        let both: Wanted<'_> = &[("a", &[("app", "app:1")]), ("b", &[("app", "app:2"), ("side", "app:3")])];
        self.runs(both).await;
        for _ in 0..2 {
            let app = self.node.app("a").expect("it runs");
            self.node.fake().exit(&app.id, 1);
            self.runs(both).await;
        }
        self.node.write("a.yaml", &pod("a", "app:4"));
        self.runs(&[("a", &[("app", "app:4")]), ("b", &[("app", "app:2"), ("side", "app:3")])]).await;
        self.node.remove("b.yaml");
        self.runs(&[("a", &[("app", "app:4")])]).await;
        let [sandbox] = &self.node.fake().sandboxes_of("a-node")[..] else { panic!("one sandbox: {:?}", self.node) };
        self.node.fake().lose_sandbox(&sandbox.id, "its namespace was removed");
        self.runs(&[("a", &[("app", "app:4")])]).await;
        self.node.remove("a.yaml");
        if let Some(hold) = self.hold.take() {
            tokio::select! {
                () = self.node.is_empty() => {}
                () = hold.reached() => self.restart().await,
            }
        }
        self.node.is_empty().await;
        self.node.check();
        self.node
    }

    async fn runs(&mut self, wanted: Wanted<'_>) {
        if let Some(hold) = self.hold.clone() {
            tokio::select! {
                () = self.node.runs(wanted) => return,
                () = hold.reached() => {}
            }
            self.hold = None;
            self.restart().await;
        }
        self.node.runs(wanted).await;
    }

    async fn restart(&mut self) {
        match self.is_killed {
            true => self.node.kill().await,
            false => self.node.stop().await,
        }
        self.node.start();
    }
}

/// Counts the calls of each method in an undisturbed story; of read-only methods, which are all alike, at most four.
async fn calls() -> Vec<(Method, u32)> {
    let node = Story { node: Node::new(), hold: None, is_killed: false }.tell().await;
    let count = |method: Method| {
        let count = u32::try_from(node.fake().count(method)).expect("few calls");
        if method.only_reads() { count.min(4) } else { count }
    };
    // The story has neither hooks nor probes.
    let methods = Method::OF_PODS.into_iter().filter(|method| *method != Method::Exec);
    methods.map(|method| (method, count(method))).collect()
}

#[tokio::test(start_paused = true)]
async fn any_call_may_fail_in_any_way() {
    for (method, count) in calls().await {
        assert!(count > 0, "the story does not call {method}");
        for call in 1..=count {
            for kind in Fault::KINDS.into_iter().take(if method.only_reads() { 1 } else { Fault::KINDS.len() }) {
                println!("call {call} of {method} fails with {kind:?}");
                let node = Node::new();
                node.fake().fault(method, When::Nth(call), Fault::fail(kind));
                Story { node, hold: None, is_killed: false }.tell().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_answer_may_be_lost() {
    for (method, count) in calls().await {
        for call in 1..=count {
            for kind in [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Other] {
                println!("the answer to call {call} of {method} is lost with {kind:?}");
                let node = Node::new();
                node.fake().fault(method, When::Nth(call), Fault::lose_answer(kind));
                Story { node, hold: None, is_killed: false }.tell().await;
            }
        }
    }
}

/// Restarts the agent in every call of the story.
async fn restart_in_any_call(is_killed: bool) {
    for (method, count) in calls().await {
        for call in 1..=count {
            for is_done in [false, true] {
                println!("restarted in call {call} of {method}, its work done: {is_done}");
                let node = Node::new();
                let hold = match is_done {
                    false => node.fake().hang(method, When::Nth(call)),
                    true => node.fake().hang_after(method, When::Nth(call)),
                };
                Story { node, hold: Some(hold), is_killed }.tell().await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_agent_may_be_killed_in_any_call() {
    restart_in_any_call(false).await;
}

// This drops a step half-way for which an orderly stop waits.
#[tokio::test(start_paused = true)]
async fn the_agent_may_be_killed_at_once_in_any_call() {
    restart_in_any_call(true).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_may_be_slow() {
    for seconds in [1, 40] {
        let node = Node::new();
        node.fake().slow_down(Duration::from_secs(seconds));
        Story { node, hold: None, is_killed: false }.tell().await;
    }
}

/// Starts a node with two runtimes; `a` runs on the first.
async fn two() -> Node {
    let mut node = Node::with_runtimes(&["first", "second"]);
    node.write("a.yaml", &pod("a", "app:1"));
    node.start();
    node.runs(&[("a", &[("app", "app:1")])]).await;
    node
}

fn moved() -> crate::manifest::Manifest {
    pod("a", "app:1").spec("runtimeClassName: second")
}

async fn is_moved(node: &Node) {
    node.runs(&[("a", &[("app", "app:1")])]).await;
    let second = &node.fakes[1].1;
    node.patiently("the move", second.until_running("app")).await;
    node.patiently("the end of the old", node.fake().until(|now| now.sandboxes.is_empty())).await;
    node.check();
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_moves_to_another_runtime_is_stopped_before_it_starts() {
    let node = two().await;
    node.write("a.yaml", &moved());
    is_moved(&node).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_does_not_move_while_its_old_runtime_cannot_be_seen() {
    let node = two().await;
    node.fake().set_available(false);
    node.write("a.yaml", &moved());
    node.settle().await;
    assert_eq!(node.fakes[1].1.inventory().sandboxes, [], "I1");
    node.fake().set_available(true);
    is_moved(&node).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_saw_the_old_runtime_waits_for_it() {
    for by_manifest in [true, false] {
        let mut node = two().await;
        node.stop().await;
        match by_manifest {
            true => node.write("a.yaml", &moved()),
            false => node.config.default_backend = DefaultBackend::Named("second".to_owned()),
        }
        node.fake().set_available(false);
        node.start();
        node.shows("why it waits", |node| node.status("a").reason.as_deref() == Some("BackendUnavailable")).await;
        node.settle().await;
        assert_eq!(node.fakes[1].1.inventory().sandboxes, [], "I1");
        node.fake().set_available(true);
        is_moved(&node).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_move_survives_lost_answers() {
    for method in [Method::StopContainer, Method::RemoveSandbox, Method::CreateSandbox, Method::StartContainer] {
        for fault in [Fault::lose_answer(ErrorKind::Timeout), Fault::fail(ErrorKind::Crashed)] {
            println!("{method}: {fault:?}");
            let node = two().await;
            for (_, fake) in &node.fakes {
                fake.fault(method, When::Nth(1), fault.clone());
            }
            node.write("a.yaml", &moved());
            is_moved(&node).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_not_stopped_for_a_move_before_its_image_is_there() {
    let node = two().await;
    let second = &node.fakes[1].1;
    second.unpublish("docker.io/library/app:1");
    node.write("a.yaml", &moved());
    node.shows("the missing image", |node| !node.events("Failed").is_empty()).await;
    node.runs(&[("a", &[("app", "app:1")])]).await;
    let app = node.app("a").expect("it runs where it was");
    node.fake().exit(&app.id, 1);
    node.runs(&[("a", &[("app", "app:1")])]).await;
    second.publish("docker.io/library/app:1", 1000);
    is_moved(&node).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_removed_and_named_anew_while_its_runtime_is_away_waits_for_it() {
    let mut node = two().await;
    node.stop().await;
    node.fake().set_available(false);
    node.start();
    node.shows("why it waits", |node| node.status("a").reason.as_deref() == Some("BackendUnavailable")).await;
    node.remove("a.yaml");
    node.settle().await;
    assert!(node.pod("a").is_some(), "I7: it runs where it cannot be seen");
    node.write("a.yaml", &moved());
    node.settle().await;
    assert_eq!(node.fakes[1].1.inventory().sandboxes, [], "I1");
    node.fake().set_available(true);
    is_moved(&node).await;
}
