//! `ephemeral-storage` limits, requests and evictions on real runtimes.

use std::time::Duration;

use anyhow::{Result, ensure};
use stanchion_tests::{
    Backend, Node,
    pods::{self, IDLE, shell},
    wait::throughout,
};

stanchion_tests::on_each_runtime! {
    a_container_that_fills_its_root_file_system_has_its_pod_evicted,
    a_container_that_talks_too_much_has_its_pod_evicted,
    a_volume_that_is_filled_has_its_pod_evicted,
    what_the_node_does_not_have_is_not_given,
}

const LIMIT: &str = "    resources:\n      limits: {ephemeral-storage: 4Mi}\n";

fn await_evicted(node: &Node, message: &str) -> Result<()> {
    node.until("the eviction", || {
        let status = node.pod("pod")?.0["status"].clone();
        ensure!(status["reason"] == "Evicted" && status["phase"] == "Failed", "R-EVI-1: {status}");
        ensure!(status["message"] == message, "R-EVI-1: {status}");
        let running = node.view().of_pod(&pods::on_node("pod"))?;
        ensure!(running.is_empty(), "it runs on: {running:?}");
        Ok(())
    })?;
    node.await_said(&["describe", "pod", &pods::on_node("pod")], &["Evicted", message.trim_end()])
}

// R-EVI-1, R-GAP-16.
fn a_container_that_fills_its_root_file_system_has_its_pod_evicted(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let other = "  - name: other\n    image: busybox\n    command: [sh, -c, 'sleep 3600 & wait']\n    \
                     resources: {limits: {ephemeral-storage: 64Mi}}\n";
        node.write("pod.yaml", shell("pod", IDLE, &format!("{LIMIT}{other}")))?;
        node.await_running("pod")?;
        let name = pods::on_node("pod");
        let write = |mebibytes: &str| {
            let command =
                ["exec", &name, "-c", "main", "--", "dd", "if=/dev/zero", "of=/file", "bs=1048576", mebibytes];
            node.agent.text(&command).map(drop)
        };
        write("count=2")?;
        throughout(Duration::from_secs(12), || {
            ensure!(node.pod("pod")?.phase() == "Running", "R-EVI-1: it may have that much");
            Ok(())
        })?;
        write("count=6")?;
        await_evicted(node, "Container main exceeded its local ephemeral storage limit \"4Mi\". ")?;
        println!("told to begin anew it has a new root file system");
        node.agent.text(&["restart", &name])?;
        node.await_running("pod")?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

// R-EVI-1: on Docker, dockerd keeps the container's log.
fn a_container_that_talks_too_much_has_its_pod_evicted(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script = "i=0; while [ $i -lt 3000 ]; do echo $i $(printf %02000d 0); i=$((i+1)); done; sleep 3600 & wait";
        node.write("pod.yaml", shell("pod", script, LIMIT))?;
        await_evicted(node, "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ")
    })
}

// R-VOL-5.
fn a_volume_that_is_filled_has_its_pod_evicted(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let script = "dd if=/dev/zero of=/v/file bs=1048576 count=6; sleep 3600 & wait";
        let volume = "    volumeMounts: [{name: v, mountPath: /v}]\n  volumes: [{name: v, emptyDir: {}}]\n";
        node.write("pod.yaml", shell("pod", script, &format!("{LIMIT}{volume}")))?;
        await_evicted(node, "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ")
    })
}

// R-ADM-3, R-RES-21.
fn what_the_node_does_not_have_is_not_given(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let extra = "    resources:\n      requests: {ephemeral-storage: 1Ei}\n";
        node.write("pod.yaml", shell("pod", IDLE, extra))?;
        node.await_said(&["get", "pods"], &["OutOfephemeral-storage"])?;
        let shown = node.agent.json(&["get", "nodes"])?["items"][0]["capacity"]["ephemeral-storage"].clone();
        let kibibytes: u64 = shown.as_str().and_then(|it| it.strip_suffix("Ki")).unwrap_or_default().parse()?;
        let pod = node.pod("pod")?;
        let message = pod.0["status"]["message"].as_str().unwrap_or_default();
        let capacity: u64 = message.rsplit(' ').next().unwrap_or_default().parse()?;
        ensure!(capacity / 1024 == kibibytes, "R-RES-21: {message}, but {shown}");
        Ok(())
    })
}
