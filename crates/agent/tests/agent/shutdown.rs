//! Node shutdown: pods end in order.

use std::time::Duration;

use stanchion_agent::config::NodeShutdown;
use stanchion_runtime::testing::Program;
use tokio::time::Instant;

use crate::{manifest::raw, node::Node};

const LIMITS: NodeShutdown = NodeShutdown { grace: Duration::from_secs(30), critical: Duration::from_secs(10) };

/// Starts a node with a usual and a critical pod, which run these programs.
fn node(usual: Program, critical: Program) -> Node {
    let mut node = Node::new();
    node.fake().program("usual", usual);
    node.fake().program("critical", critical);
    let grace = "terminationGracePeriodSeconds: 60";
    node.write("a.yaml", &raw("a", &format!("{grace}\ncontainers: [{{name: usual, image: 'app:1'}}]")));
    let class = "priorityClassName: system-node-critical";
    node.write("b.yaml", &raw("b", &format!("{grace}\n{class}\ncontainers: [{{name: critical, image: 'app:1'}}]")));
    node.start();
    node
}

const BOTH: &[(&str, &[(&str, &str)])] = &[("a", &[("usual", "app:1")]), ("b", &[("critical", "app:1")])];

// R-SHD-1.
#[tokio::test(start_paused = true)]
async fn critical_pods_end_last_and_all_run_again_afterwards() {
    let usual = Program::stops_in(Duration::from_secs(5), 0);
    let mut node = node(usual, Program::stops_in(Duration::from_secs(3), 0));
    node.runs(BOTH).await;
    let begun = Instant::now();
    node.handle().end_pods(LIMITS).await;
    assert_eq!(begun.elapsed().as_secs(), 8, "nobody waits for what has ended");
    assert_eq!(node.stops(begun), [("usual".to_owned(), 0), ("critical".to_owned(), 5)]);
    for pod in ["a", "b"] {
        let status = node.status(pod);
        assert_eq!(status.phase.as_deref(), Some("Failed"), "{pod}");
        assert_eq!(status.reason.as_deref(), Some("Terminated"), "{pod}");
        let message = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(status.message.as_deref(), Some(message), "{pod}");
    }
    let quiet = node.starts(begun).len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.starts(begun).len(), quiet, "nothing is started while the node shuts down");
    node.restart().await;
    node.runs(BOTH).await;
}

// R-SHD-1.
#[tokio::test(start_paused = true)]
async fn pods_have_the_nodes_time_and_no_more() {
    let node = node(Program::stubborn(), Program::stubborn());
    node.runs(BOTH).await;
    let begun = Instant::now();
    node.handle().end_pods(LIMITS).await;
    assert_eq!(node.stops(begun), [("usual".to_owned(), 0), ("critical".to_owned(), 20)]);
    assert_eq!(begun.elapsed(), LIMITS.grace);
    for (pod, container) in [("a", "usual"), ("b", "critical")] {
        assert_eq!(node.state(pod, container), "Error 137", "{pod}");
    }
}
