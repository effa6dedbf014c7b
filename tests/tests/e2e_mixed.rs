//! Docker and containerd on one node, under one agent.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stanchion_tests::{
    Node,
    ctr::Running,
    pods::{self, IDLE, on_node},
    proc,
    view::View,
    wait::throughout,
};

/// Returns a pod with `runtimeClassName: containerd`.
fn on_containerd(name: &str, revision: &str) -> String {
    format!("{}  runtimeClassName: containerd\n", pods::idle(name, revision))
}

/// Waits until the pod runs in one container, on `here` and on no other runtime; returns it.
fn only_on(node: &Node, here: &View, name: &str) -> Result<Running> {
    node.until(&format!("pod {name} to run in one place"), || {
        let pod = node.pod(name)?;
        ensure!(pod.phase() == "Running" && pod.ready(), "{}", pod.summary());
        let mut everywhere = 0;
        for view in node.views() {
            everywhere += view.of_pod(&on_node(name))?.len();
        }
        let mut running = here.of_pod(&on_node(name))?;
        ensure!(running.len() == 1 && everywhere == 1, "{} here, {everywhere} in all", running.len());
        running.pop().context("a list of one is empty")
    })
}

/// Returns Docker's view and containerd's.
fn both(node: &Node) -> Result<[View; 2]> {
    node.views().try_into().map_err(|views| anyhow::anyhow!("not two runtimes: {views:?}"))
}

#[test]
fn each_pod_runs_where_its_runtime_class_says_and_moves_with_it() -> Result<()> {
    Node::builder().mixed().run(|node| {
        let [docker, containerd] = both(node)?;
        node.write("one.yaml", pods::idle("one", "1"))?;
        node.write("two.yaml", on_containerd("two", "1"))?;
        let one = only_on(node, &docker, "one")?;
        only_on(node, &containerd, "two")?;
        let shown = node.said(&["backends"])?;
        for name in ["docker", "containerd"] {
            let row: Vec<_> =
                shown.lines().find(|row| row.starts_with(name)).context(shown.clone())?.split_whitespace().collect();
            ensure!(row[1] == "Ready" && row[2] == "1", "{row:?}");
        }
        println!("to the other and back");
        node.write("one.yaml", on_containerd("one", "1"))?;
        only_on(node, &containerd, "one")?;
        ensure!(!proc::alive(one.pid), "the old one lives on");
        node.write("one.yaml", pods::idle("one", "1"))?;
        only_on(node, &docker, "one")?;
        println!("the agent starts anew");
        node.agent.kill()?;
        node.agent.start()?;
        for (name, view) in [("one", &docker), ("two", &containerd)] {
            only_on(node, view, name)?;
            node.remove(&format!("{name}.yaml"))?;
        }
        node.await_nothing_left()
    })
}

#[test]
fn a_daemon_that_hangs_delays_only_its_own_pods() -> Result<()> {
    Node::builder().mixed().run(|node| {
        let [docker, containerd] = both(node)?;
        node.write("theirs.yaml", pods::idle("theirs", "1"))?;
        let theirs = only_on(node, &docker, "theirs")?;
        let dockerd = node.docker.as_ref().and_then(|docker| docker.id()).context("dockerd runs")?;
        let dockerd = Pid::from_raw(i32::try_from(dockerd)?).context("a pid")?;
        kill_process(dockerd, Signal::STOP)?;
        let hung = || -> Result<()> {
            node.write("late.yaml", pods::idle("late", "1"))?;
            node.write("ours.yaml", on_containerd("ours", "1"))?;
            let running = |revision: &str| {
                node.until("ours to run", || {
                    let found = containerd.of_pod(&on_node("ours"))?;
                    let [one] = &found[..] else { anyhow::bail!("{} run", found.len()) };
                    let environment = proc::environment(one.pid)?;
                    ensure!(environment.contains(&format!("REVISION={revision}")), "still the old one");
                    Ok(one.pid)
                })
            };
            stanchion_tests::process::kill(running("1")?)?;
            running("1")?;
            node.write("ours.yaml", on_containerd("ours", "2"))?;
            running("2")?;
            node.await_said(&["describe", "pod", "late"], &["BackendUnavailable", "(since 20"])?;
            let shown = node.said(&["backends"])?;
            let row = shown.lines().find(|row| row.starts_with("docker")).context(shown.clone())?;
            ensure!(row.contains("Unavailable"), "{row}");
            node.remove("ours.yaml")?;
            node.until("ours to be gone", || {
                let left = containerd.of_pod(&on_node("ours"))?;
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            })
        }();
        kill_process(dockerd, Signal::CONT)?;
        hung?;
        only_on(node, &docker, "late")?;
        let now = only_on(node, &docker, "theirs")?;
        ensure!(now.identity() == theirs.identity(), "I3: {theirs:?} became {now:?}");
        for name in ["theirs", "late"] {
            node.remove(&format!("{name}.yaml"))?;
        }
        node.await_nothing_left()
    })
}

#[test]
fn pods_of_a_daemon_that_ended_with_its_containers_run_on_the_other() -> Result<()> {
    Node::builder().mixed().backend("failover = true\nfailover_after = \"1s\"\n").run(|node| {
        let [docker, containerd] = both(node)?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        let never = pods::shell("never", IDLE, "  restartPolicy: Never\n");
        node.write("never.yaml", never)?;
        only_on(node, &docker, "pod")?;
        only_on(node, &docker, "never")?;
        node.end_runtime(Signal::TERM)?;
        let moved = node.until("the pod to run on containerd", || {
            let mut found = containerd.of_pod(&on_node("pod"))?;
            ensure!(found.len() == 1, "{} run", found.len());
            found.pop().context("a list of one is empty")
        })?;
        node.await_said(&["events"], &["FailedOver"])?;
        ensure!(containerd.of_pod(&on_node("never"))?.is_empty(), "it may be done");
        println!("Docker is back");
        node.resume_runtime()?;
        node.until("the agent to see Docker", || {
            let shown = node.said(&["backends"])?;
            ensure!(shown.lines().any(|row| row.starts_with("docker") && row.contains("Ready")), "{shown}");
            Ok(())
        })?;
        throughout(Duration::from_secs(2), || {
            let now = only_on(node, &containerd, "pod")?;
            ensure!(now.identity() == moved.identity(), "I3: {moved:?} became {now:?}");
            Ok(())
        })?;
        println!("the next change goes home");
        node.write("pod.yaml", pods::idle("pod", "2"))?;
        only_on(node, &docker, "pod")?;
        for name in ["pod", "never"] {
            node.remove(&format!("{name}.yaml"))?;
        }
        node.await_nothing_left()
    })
}

#[test]
fn pods_that_a_dead_daemon_left_running_are_not_doubled() -> Result<()> {
    Node::builder().mixed().backend("failover = true\nfailover_after = \"1s\"\n").run(|node| {
        let [docker, containerd] = both(node)?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        let before = only_on(node, &docker, "pod")?;
        node.end_runtime(Signal::KILL)?;
        node.await_said(&["describe", "pod", "pod"], &["its processes there still run"])?;
        throughout(Duration::from_secs(3), || {
            ensure!(proc::alive(before.pid), "who killed it?");
            let doubled = containerd.of_pod(&on_node("pod"))?;
            ensure!(doubled.is_empty(), "I1: {doubled:?}");
            Ok(())
        })?;
        // dockerd ends its old containers before it answers; if the agent looks meanwhile, the pod moves to containerd.
        node.resume_runtime()?;
        node.until("the pod to run in one place", || {
            let found = [docker.of_pod(&on_node("pod"))?, containerd.of_pod(&on_node("pod"))?].concat();
            ensure!(found.len() == 1 && found[0].pid != before.pid, "{found:?}");
            Ok(())
        })?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}
