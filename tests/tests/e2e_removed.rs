//! Command-line output about removed pods (`--show-removed`), on real runtimes.

use anyhow::{Result, ensure};
use serde_json::Value;
use stanchion_tests::{
    Backend, Node,
    pods::{self, shell},
};

stanchion_tests::on_each_runtime! {
    how_a_removed_pod_ended_is_told,
}

// R-TERM-7.
fn how_a_removed_pod_ended_is_told(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script =
            "trap 'echo last words > /dev/termination-log; exit 3' TERM; while :; do sleep 3600 & wait $!; done";
        node.write("pod.yaml", shell("pod", script, "    env: [{name: TOKEN, value: hush}]\n"))?;
        node.await_running("pod")?;
        ensure!(!node.agent.text(&["get", "pods", "--show-removed"])?.contains("REMOVED"), "nothing was removed");
        node.remove("pod.yaml")?;
        node.await_nothing_left()?;
        ensure!(node.pod_names()?.is_empty(), "R-TERM-7: it is shown only if asked for");

        println!("killed, the next agent knows it too");
        node.agent.kill()?;
        node.agent.start()?;
        node.await_said(&["get", "pods", "--show-removed"], &["REMOVED", "pod-node-1", "Error"])?;
        let shown = node.agent.json(&["get", "pods", "pod", "--show-removed"])?;
        ensure!(!shown.to_string().contains("hush"), "I10: {shown}");
        let pod = &shown["items"][0];
        let status = &pod["status"];
        ensure!(status["phase"] == "Failed" && status["reason"] == "ManifestRemoved", "R-TERM-7: {status}");
        let end = &status["containerStatuses"][0]["state"]["terminated"];
        ensure!(end["exitCode"] == 3 && end["message"] == "last words\n", "R-TERM-7: {end}");
        let at = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let removed_at = at(&pod["metadata"]["annotations"]["stanchion.dev/removed-at"]);
        ensure!(removed_at >= at(&end["finishedAt"]) && removed_at.is_some(), "R-TERM-7: {pod}");
        let name = pods::on_node("pod");
        node.await_said(&["describe", "pod", &name], &["Removed:", "ManifestRemoved", "last words"])?;

        println!("one of the same name that runs is the one that is meant");
        node.write("pod.yaml", shell("pod", pods::IDLE, ""))?;
        node.await_running("pod")?;
        ensure!(!node.agent.text(&["describe", "pod", &name])?.contains("Removed:"), "R-TERM-7");
        let both = node.agent.json(&["get", "pods", "--show-removed"])?;
        ensure!(both["items"].as_array().is_some_and(|items| items.len() == 2), "R-TERM-7: {both}");
        Ok(())
    })
}
