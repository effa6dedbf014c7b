//! Restart policies and rules of single containers (static-pods.md, 4.5).

use std::time::Duration;

use stanchion_runtime::testing::{Method, Program};
use tokio::time::Instant;

use crate::{manifest::raw, node::Node};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_container_s_rules_and_policy_come_before_the_pod_s() {
    let spec = "
restartPolicy: Always
containers:
- {name: app, image: app:1}
- {name: once, image: app:1, restartPolicy: Never}
- {name: on-failure, image: app:1, restartPolicy: OnFailure}
- {name: rule, image: app:1, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, \
                values: [42]}}]}
- {name: no-rule, image: app:1, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: \
                NotIn, values: [1]}}]}
";
    let mut node = Node::new();
    for (name, code) in [("once", 1), ("on-failure", 0), ("rule", 42), ("no-rule", 1)] {
        node.fake().program(name, Program::exits(SECOND, code));
    }
    node.write("web.yaml", &raw("web", spec));
    node.start();
    tokio::time::sleep(8 * SECOND).await;
    let counts = ["app", "once", "on-failure", "rule", "no-rule"].map(|name| node.container("web", name).restart_count);
    assert_eq!(counts, [0, 0, 0, 1, 0], "R-RSP-1");
    let states = ["once", "on-failure", "rule", "no-rule"].map(|name| node.state("web", name));
    assert_eq!(states, ["Error 1", "Completed 0", "CrashLoopBackOff", "Error 1"], "R-RSP-1");
    assert_eq!(node.events("BackOff").len(), 1, "R-BCK-4");
}

const RULES: &str = "
initContainers:
- {name: setup, image: app:1}
containers:
- {name: leader, image: app:1, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: \
                        {operator: In, values: [9]}}]}
- {name: app, image: app:1}
";

#[tokio::test(start_paused = true)]
async fn one_end_can_start_all_containers_again_in_the_same_sandbox() {
    for agent_dies in [false, true] {
        let mut node = Node::new();
        node.fake().program("setup", Program::exits(SECOND, 0));
        node.fake().program("app", Program::stubborn());
        node.write("web.yaml", &raw("web", RULES));
        let origin = Instant::now();
        node.start();
        node.shows("web Ready", |node| node.condition("web", "Ready").is_some_and(|it| it.0 == "True")).await;
        assert_eq!(
            node.condition("web", "AllContainersRestarting").map(|it| it.0).as_deref(),
            Some("False"),
            "R-CND-1"
        );
        let leader = node.fake().container("leader").expect("it runs");
        if agent_dies {
            let hold = node.fake().hang(Method::RemoveContainer, stanchion_runtime::testing::When::Nth(2));
            node.fake().exit(&leader.id, 9);
            node.patiently("the second removal", hold.reached()).await;
            node.restart().await;
        } else {
            node.fake().exit(&leader.id, 9);
        }
        let is_anew = |node: &Node| {
            node.container("web", "leader").restart_count == 1
                && node.condition("web", "Ready").is_some_and(|it| it.0 == "True")
        };
        node.shows("all again", is_anew).await;
        let names: Vec<_> = node.starts(origin).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["setup", "leader", "app", "setup", "leader", "app"], "R-RSP-4; agent dies: {agent_dies}");
        assert_eq!(node.fake().count(Method::CreateSandbox), 1, "R-RSP-4");
        let counts = ["setup", "leader", "app"].map(|name| node.container("web", name).restart_count);
        assert_eq!(counts, [1, 1, 1], "R-SYNC-13; agent dies: {agent_dies}");
        let last = node.container("web", "app").last_state.and_then(|last| last.terminated).expect("R-RSP-4");
        assert_eq!((last.reason.as_deref(), last.exit_code), (Some("RestartingAllContainers"), 137), "R-RSP-4");
    }
}
