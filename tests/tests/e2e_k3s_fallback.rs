//! Pods of K3s's containerd while it is away: they run on another backend (`when_socket_absent = "fallback"`), or wait.

use std::{fs::OpenOptions, io::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use stanchion_tests::{
    Backend, Node,
    containerd::Containerd,
    ctr::Ctr,
    k3s::{follows, is_as_it_was, k3s, runs_not_on, runs_on},
    pods, proc,
    wait::throughout,
};

/// Runs a test on a node with K3s and a second containerd, configured as the backend after K3s.
fn with_another(on_return: &str, test: impl FnOnce(&mut Node, &Ctr) -> Result<()>) -> Result<()> {
    let settings = format!("when_socket_absent = \"fallback\"\non_return = \"{on_return}\"\n");
    let mut node = Node::builder().on(Backend::K3s).backend(&settings).without_agent()?;
    let other = Containerd::start(&node.path("other"))?;
    let names = node.names();
    let mirror = node.registry.as_ref().context("a node with a registry")?.address();
    // Both backends share one bridge, as they do by default.
    let table = format!(
        "\n[backend.containerd]\nsocket = {socket:?}\nnamespace = \"{namespace}\"\ncgroup_root = \"{cgroup}/other\"\n\
         network = {{ bridge = \"{bridge}\", subnet = \"{subnet}\" }}\n\
         registry.\"docker.io\" = {{ mirrors = [\"http://{mirror}\"] }}\n",
        socket = other.socket(),
        namespace = names.namespace,
        cgroup = names.cgroup_root,
        bridge = names.bridge,
        subnet = names.subnet(),
    );
    OpenOptions::new().append(true).open(node.path("stanchion.toml"))?.write_all(table.as_bytes())?;
    let ctr = other.ctr(&names.namespace);
    let tested = test(&mut node, &ctr);
    if tested.is_err() {
        eprintln!("{}", node.dump());
    }
    tested
}

#[test]
fn another_backend_takes_the_pods_once_nothing_of_them_runs_and_they_stay() -> Result<()> {
    with_another("stay", |node, other| {
        node.agent.start()?;
        let ctr = node.ctr();
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        let before = runs_on(node, &ctr, "pod")?;

        println!("K3s's containerd ends; the pod runs on, and is not doubled");
        node.containerd.end(Signal::KILL)?;
        node.await_said(&["describe", "pod", "pod"], &["its processes there still run"])?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&before)?;
            runs_not_on(other, "pod")
        })?;

        println!("the machine restarts without a server: it runs on the other");
        node.agent.stop()?;
        k3s(node)?.reboot()?;
        k3s(node)?.start_process()?;
        node.agent.start()?;
        let moved = runs_on(node, other, "pod")?;
        ensure!(!proc::alive(before.pid), "the old one runs (I1)");
        node.await_said(&["backends"], &["k3s-process-no-server", "Another backend runs the pods"])?;
        node.await_said(&["get", "events"], &["FailedOver"])?;

        println!("K3s is back: it stays, a new one is K3s's, a change takes it home");
        node.containerd.resume()?;
        node.await_said(&["backends"], &["k3s-up"])?;
        node.write("second.yaml", pods::idle("second", "1"))?;
        runs_on(node, &ctr, "second")?;
        throughout(Duration::from_secs(3), || {
            is_as_it_was(&moved)?;
            runs_not_on(&ctr, "pod")
        })?;
        node.write("pod.yaml", pods::idle("pod", "2"))?;
        runs_on(node, &ctr, "pod")?;
        ensure!(!proc::alive(moved.pid), "the old one runs (I1)");
        for pod in ["pod", "second"] {
            node.remove(&format!("{pod}.yaml"))?;
            node.await_gone(pod)?;
        }
        node.until("nothing to be left on the other", || {
            let left = other.containers()?;
            ensure!(left.is_empty(), "there is {left:?}");
            Ok(())
        })
    })
}

#[test]
fn pods_of_a_cold_boot_migrate_when_k3s_is_back() -> Result<()> {
    with_another("migrate", |node, other| {
        node.containerd.end(Signal::KILL)?;
        k3s(node)?.reboot()?;
        k3s(node)?.start_process()?;
        node.agent.start()?;
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        let first = runs_on(node, other, "pod")?;

        println!("the agent restarts, and leaves it where it is");
        node.agent.kill()?;
        node.agent.start()?;
        throughout(Duration::from_secs(3), || is_as_it_was(&first))?;

        println!("K3s is back");
        node.containerd.resume()?;
        let ctr = node.ctr();
        follows(node, &first, &ctr, "pod")?;
        let now = runs_on(node, &ctr, "pod")?;
        throughout(Duration::from_secs(2), || {
            is_as_it_was(&now)?;
            runs_not_on(other, "pod")
        })?;
        node.remove("pod.yaml")?;
        node.await_gone("pod")
    })
}

#[test]
fn pods_of_a_cold_boot_wait_for_k3s_if_they_are_to() -> Result<()> {
    let mut node = Node::builder().on(Backend::K3s).backend("when_socket_absent = \"wait\"\n").without_agent()?;
    node.agent.start()?;
    let ctr = node.ctr();
    node.write("pod.yaml", pods::idle("pod", "1"))?;
    let before = runs_on(&node, &ctr, "pod")?;
    node.agent.stop()?;
    node.containerd.end(Signal::KILL)?;
    k3s(&mut node)?.reboot()?;
    k3s(&mut node)?.start_process()?;
    node.agent.start()?;
    node.await_said(&["describe", "pod", "pod"], &["BackendUnavailable", "k3s", "(since 20"])?;
    node.await_said(&["backends"], &["k3s-process-no-server", "Pods wait for it"])?;
    ensure!(!proc::alive(before.pid), "the old one runs");
    node.containerd.resume()?;
    runs_on(&node, &ctr, "pod")?;
    node.remove("pod.yaml")?;
    node.await_gone("pod")?;
    node.await_nothing_left_but("K3s's own process", |thing| thing.contains("k3s-agent"))
}
