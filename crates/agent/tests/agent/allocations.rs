//! Admission: the pods' resource requests and host ports against what the node has.

use stanchion_runtime::testing::Program;

use crate::{
    manifest::{pod, raw},
    node::Node,
};

/// Returns a pod that requests `part` percent of the node's CPUs.
fn asking(name: &str, part: usize, policy: &str) -> String {
    let cpu = std::thread::available_parallelism().expect("known").get() * 10 * part;
    raw(
        name,
        &format!(
            "restartPolicy: {policy}\ncontainers:\n- name: {name}\n  image: app:1\n  resources: {{requests: {{cpu: {cpu}m}}}}\n"
        ),
    )
}

fn phase(node: &Node, pod: &str) -> String {
    node.status(pod).phase.unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_capacity() {
    for ends in [false, true] {
        let mut node = Node::new();
        node.write("a.yaml", &asking("a", 60, "Never"));
        node.start();
        node.runs(&[("a", &[("a", "app:1")])]).await;
        node.write("b.yaml", &asking("b", 60, "Never"));
        node.shows("b Failed", |node| phase(node, "b") == "Failed").await;
        let status = node.status("b");
        assert_eq!(status.reason.as_deref(), Some("OutOfcpu"), "R-ADM-3");
        let message = status.message.unwrap_or_default();
        assert!(
            message.starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: "),
            "{message}"
        );
        node.settle().await;
        assert_eq!(node.events("OutOfcpu").len(), 1, "R-ADM-3");
        node.restart().await;
        node.settle().await;
        assert_eq!((phase(&node, "a").as_str(), phase(&node, "b").as_str()), ("Running", "Failed"), "R-ADM-2");
        match ends {
            true => {
                let a = node.fake().container("a").expect("it runs").id;
                node.fake().exit(&a, 0);
            }
            false => node.remove("a.yaml"),
        }
        node.shows("b Running", |node| phase(node, "b") == "Running").await;
        node.settle().await;
        assert_eq!(phase(&node, "b"), "Running", "R-ADM-1: tried again when the obstacle is gone");
    }
}

#[tokio::test(start_paused = true)]
async fn what_runs_goes_on_on_a_node_that_became_smaller() {
    let mut node = Node::new();
    for pod in ["a", "b"] {
        node.fake().program(pod, Program::server());
        node.write(&format!("{pod}.yaml"), &asking(pod, 10, "Always"));
    }
    node.start();
    let both = [("a", &[("a", "app:1")][..]), ("b", &[("b", "app:1")][..])];
    node.runs(&both).await;
    let before: Vec<_> = node.fake().inventory().containers.into_iter().map(|it| it.id).collect();
    node.stop().await;
    node.config.max_pods = 1;
    node.start();
    node.settle().await;
    node.runs(&both).await;
    let after: Vec<_> = node.fake().inventory().containers.into_iter().map(|it| it.id).collect();
    assert_eq!(before, after, "I3");
    node.write("c.yaml", &asking("c", 10, "Always"));
    node.shows("c Failed", |node| node.status("c").reason.as_deref() == Some("OutOfpods")).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_does_not_fit_leaves_what_runs() {
    let mut node = Node::new();
    node.write("a.yaml", &asking("a", 60, "Always"));
    node.start();
    node.runs(&[("a", &[("a", "app:1")])]).await;
    let before = node.fake().container("a").expect("it runs").id;
    node.write("a.yaml", &asking("a", 101, "Always"));
    node.shows("the refusal", |node| !node.events("OutOfcpu").is_empty()).await;
    node.settle().await;
    assert_eq!(node.fake().container("a").expect("it runs").id, before, "R-ADM-3");
    assert_eq!(phase(&node, "a"), "Running");
    node.write("a.yaml", &asking("a", 90, "Always"));
    node.patiently("the edit", node.fake().until(|now| now.containers.iter().all(|it| it.id != before))).await;
    node.runs(&[("a", &[("a", "app:1")])]).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_while_no_agent_ran_that_does_not_fit_leaves_what_runs() {
    let mut node = Node::new();
    node.write("a.yaml", &with_port("a", "{containerPort: 80, hostPort: 8080}"));
    node.write("b.yaml", &with_port("b", "{containerPort: 80, hostPort: 9090}"));
    node.write("c.yaml", &asking("c", 60, "Always"));
    node.start();
    let all = [("a", &[("a", "app:1")][..]), ("b", &[("b", "app:1")][..]), ("c", &[("c", "app:1")][..])];
    node.runs(&all).await;
    let containers = |node: &Node| node.fake().inventory().containers.into_iter().map(|it| it.id).collect::<Vec<_>>();
    let before = containers(&node);
    node.stop().await;
    node.write("b.yaml", &with_port("b", "{containerPort: 80, hostPort: 8080}"));
    node.write("c.yaml", &asking("c", 101, "Always"));
    node.start();
    node.shows("the port", |node| !node.events("NodePorts").is_empty()).await;
    node.shows("the refusal", |node| !node.events("OutOfcpu").is_empty()).await;
    node.settle().await;
    assert_eq!(containers(&node), before, "I3, R-ADM-3, R-ADM-5");
    assert_eq!(["a", "b", "c"].map(|pod| phase(&node, pod)), ["Running"; 3]);
    // The pod that has the port is removed, and the edit takes effect.
    node.remove("a.yaml");
    node.patiently("the edit", node.fake().until(|now| !now.containers.iter().any(|it| it.id == before[1]))).await;
    node.runs(&[("b", &[("b", "app:1")]), ("c", &[("c", "app:1")])]).await;
}

fn with_port(name: &str, port: &str) -> String {
    raw(name, &format!("restartPolicy: Never\ncontainers: [{{name: {name}, image: app:1, ports: [{port}]}}]"))
}

#[tokio::test(start_paused = true)]
async fn a_port_of_the_node_goes_to_one_pod_and_then_to_the_next() {
    for ends in [false, true] {
        let mut node = Node::new();
        // Pods are admitted in the order of their names in the manifests: with the node's name appended, `web-2` would
        // come before `web`.
        node.write("second.yaml", &with_port("web-2", "{containerPort: 80, hostPort: 8080}"));
        node.write("first.yaml", &with_port("web", "{containerPort: 8080, hostPort: 8080, hostIP: 127.0.0.1}"));
        node.start();
        node.runs(&[("web", &[("web", "app:1")])]).await;
        node.shows("web-2 Failed", |node| phase(node, "web-2") == "Failed").await;
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: host port \
                       8080/TCP of 127.0.0.1 is in use by pod default/web-node";
        let status = node.status("web-2");
        assert_eq!(status.reason.as_deref(), Some("NodePorts"), "R-ADM-5");
        assert_eq!(status.message, Some(format!("Pod was rejected: {message}")), "R-ADM-5");
        node.settle().await;
        let events = node.events("NodePorts");
        assert_eq!(events.iter().map(|it| (&*it.message, it.count)).collect::<Vec<_>>(), [(message, 1)], "R-ADM-5");
        // The running pod keeps the port, also over a restart of the agent.
        node.write("before.yaml", &with_port("a", "{containerPort: 80, hostPort: 8080}"));
        node.restart().await;
        node.settle().await;
        assert_eq!(
            ["web", "web-2", "a"].map(|pod| phase(&node, pod)),
            ["Running", "Failed", "Failed"],
            "R-ADM-2, R-ADM-5"
        );
        node.remove("before.yaml");
        match ends {
            true => node.fake().exit(&node.fake().container("web").expect("it runs").id, 0),
            false => node.remove("first.yaml"),
        }
        node.shows("web-2 Running", |node| phase(node, "web-2") == "Running").await;
        assert!(node.pod("a").is_none(), "what was refused goes with its manifest");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_without_capacity_are_shown_and_come_and_go() {
    let mut node = Node::new();
    node.config.max_pods = 2;
    let many = |count: usize| -> String {
        (0..count).map(|at| format!("---\n{}", pod(&format!("p{at:03}"), "app:1"))).collect()
    };
    node.write("many.yaml", &many(300));
    node.start();
    node.runs(&[("p000", &[("app", "app:1")]), ("p001", &[("app", "app:1")])]).await;
    node.settle().await;
    let refused = |node: &Node| {
        let pods = node.handle().board.pods();
        let reasons = pods.iter().filter_map(|pod| pod.pod.status.as_ref()?.reason.clone());
        reasons.filter(|reason| reason == "OutOfpods").count()
    };
    assert_eq!((refused(&node), node.handle().board.pods().len()), (298, 300), "R-ADM-3");
    assert_eq!(node.events("OutOfpods").len(), 298, "once each");
    node.write("many.yaml", &many(3));
    node.shows("the others gone", |node| node.handle().board.pods().len() == 3).await;
    assert_eq!(refused(&node), 1);
    node.remove("many.yaml");
    node.is_empty().await;
}
