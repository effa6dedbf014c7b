//! The founding story of Stanchion, step by step; each step is checked at the runtime itself.

use std::{fs, time::Duration};

use anyhow::{Result, anyhow, ensure};
use rustix::process::Signal;
use stanchion_tests::{Backend, Node, ctr::Running, pods::REDIS, proc, wait::throughout};

const FILE: &str = "redis-static-pod.yaml";
const POD: &str = "static-pod";

stanchion_tests::on_each_runtime! {
    redis_outlives_everything_but_its_manifest,
}

// The same story as on containerd; e2e_k3s tests what K3s does differently.
#[test]
fn redis_outlives_everything_but_its_manifest_on_k3s() -> Result<()> {
    redis_outlives_everything_but_its_manifest(Backend::K3s)
}

// R-INOT-2, R-INOT-3, R-CHG-1, R-CHG-5, R-CHG-6, R-FILE-8, R-FILE-11, R-RST-1, R-WRK-4.
fn redis_outlives_everything_but_its_manifest(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let first = dropped_in(node)?;
        let again = killed(node, &first)?;
        killed_again(node, &again)?;
        tag_edited(node)?;
        broken_by_a_typo(node)?;
        directory_away_and_back(node)?;
        runtime_restarted(node)?;
        removed(node)
    })
}

/// Returns the redis manifest with one replacement.
fn edited(from: &str, to: &str) -> Result<String> {
    ensure!(REDIS.contains(from), "the manifest has no {from:?}");
    Ok(REDIS.replace(from, to))
}

/// Waits until the pod runs in another container than `old`; returns it.
fn successor(node: &Node, old: &Running) -> Result<Running> {
    node.until("a new container", || {
        let now = node.container(POD)?;
        ensure!(now.identity() != old.identity(), "still {:?}", old.identity());
        Ok(now)
    })
}

fn assert_same(node: &Node, before: &Running) -> Result<()> {
    let now = node.container(POD)?;
    ensure!(now.identity() == before.identity(), "{:?} became {:?}", before.identity(), now.identity());
    Ok(())
}

fn answers(node: &Node) -> Result<()> {
    node.until("redis to answer PING", || {
        let answer = node.redis(POD, "PING")?;
        ensure!(answer == "+PONG", "it answers {answer:?}");
        Ok(())
    })
}

fn dropped_in(node: &Node) -> Result<Running> {
    println!("the manifest is dropped in");
    node.write(FILE, REDIS)?;
    node.await_running(POD)?;
    answers(node)?;
    let table = node.view().table()?;
    ensure!(table.contains("docker.io/library/redis:latest"), "the runtime says:\n{table}");
    let pods = node.agent.text(&["get", "pods"])?;
    let row = pods.lines().find(|line| line.contains("static-pod-node-1")).unwrap_or_default();
    let after: Vec<_> = row.split_whitespace().skip_while(|word| *word != "static-pod-node-1").collect();
    ensure!(after.get(1..4) == Some(&["1/1", "Running", "0"]), "get pods says:\n{pods}");
    let pod = node.pod(POD)?;
    ensure!(pod.0["metadata"]["labels"]["tier"] == "backend", "the label is missing: {}", pod.0["metadata"]);
    node.container(POD)
}

fn killed(node: &Node, first: &Running) -> Result<Running> {
    println!("redis is killed with -9");
    first.kill()?;
    let again = successor(node, first)?;
    node.await_running(POD)?;
    answers(node)?;
    let restarts = node.pod(POD)?.restarts();
    ensure!(restarts == 1, "restart count is {restarts}, not 1");
    Ok(again)
}

fn killed_again(node: &Node, running: &Running) -> Result<()> {
    println!("redis is killed again, twice: the back-off is 10 s, then 20 s (R-BCK-1)");
    let at = running.kill()?;
    node.await_said(&["get", "pods"], &["CrashLoopBackOff"])?;
    node.await_said(&["describe", "pod", "static-pod-node-1"], &["back-off 10s restarting failed container"])?;
    let third = successor(node, running)?;
    let waited = at.elapsed();
    ensure!(waited >= Duration::from_secs(10), "restarted after {waited:?}, not 10 s");
    ensure!(waited < Duration::from_secs(14), "restarted only after {waited:?}, not 10 s");
    // The test sees the new container at the runtime before the agent has noticed it.
    node.await_running(POD)?;
    let restarts = node.pod(POD)?.restarts();
    ensure!(restarts == 2, "restart count is {restarts}, not 2");
    third.kill()?;
    node.await_said(&["describe", "pod", "static-pod-node-1"], &["back-off 20s restarting failed container"])
}

fn tag_edited(node: &Node) -> Result<()> {
    println!("the image tag is edited");
    let old = node.view().containers()?;
    node.write(FILE, edited("image: redis", "image: redis:7")?)?;
    let now = node.until("the new image to run", || {
        let now = node.container(POD)?;
        ensure!(now.record.image == "docker.io/library/redis:7", "{} runs", now.record.image);
        Ok(now)
    })?;
    // From the record: redis overwrites its environment in /proc.
    let environment = &now.record.spec["process"]["env"];
    ensure!(environment.to_string().contains("FIXTURE=redis:7"), "another image's environment: {environment}");
    node.await_running(POD)?;
    answers(node)?;
    ensure!(node.pod(POD)?.restarts() == 0, "a changed pod starts to count anew");
    node.until("the old containers to be gone", || {
        let left: Vec<_> = node.view().containers()?.into_iter().filter(|id| old.contains(id)).collect();
        if left.is_empty() { Ok(()) } else { Err(anyhow!("still there: {left:?}")) }
    })?;
    let links = stanchion_tests::remains::links(node.names(), false)?;
    ensure!(links.len() == 1, "one pod, but these links on the bridge: {links:?}");
    Ok(())
}

fn broken_by_a_typo(node: &mut Node) -> Result<()> {
    println!("the file is broken with a typo");
    let before = node.container(POD)?;
    let path = node.manifest(FILE).display().to_string();
    node.write(FILE, edited("image: redis", "imge: redis:8")?)?;
    // The 10th line of the manifest.
    let words = [path.as_str(), "line 10", "imge", "did you mean \"image\""];
    node.await_said(&["get", "pods"], &words)?;
    let validation = node.agent.cli(&["validate", &path])?;
    ensure!(!validation.status.success(), "validate accepts the typo");
    node.await_said(&["validate", &path], &words)?;
    assert_same(node, &before)?;

    println!("... and the agent restarts");
    node.agent.stop()?;
    node.agent.start()?;
    node.await_said(&["get", "pods"], &words)?;
    node.await_running(POD)?;
    throughout(Duration::from_secs(3), || assert_same(node, &before))?;

    println!("the typo is mended");
    node.write(FILE, edited("image: redis", "image: redis:7")?)?;
    node.until("the problem to be forgotten", || {
        let said = node.said(&["get", "pods"])?;
        ensure!(!said.contains("imge"), "get pods still says: {said}");
        Ok(())
    })?;
    throughout(Duration::from_secs(1), || assert_same(node, &before))
}

fn directory_away_and_back(node: &Node) -> Result<()> {
    println!("the directory is renamed away (I2)");
    let before = node.container(POD)?;
    let (home, away) = (node.path("manifests"), node.path("manifests-away"));
    let shown = home.display().to_string();
    fs::rename(&home, &away)?;
    node.await_said(&["get", "pods"], &[&shown])?;
    throughout(Duration::from_secs(3), || assert_same(node, &before))?;

    println!("... and back");
    fs::rename(&away, &home)?;
    node.until("the condition to end", || {
        let said = node.said(&["get", "pods"])?;
        ensure!(!said.contains(&shown), "get pods still says: {said}");
        Ok(())
    })?;
    throughout(Duration::from_secs(3), || assert_same(node, &before))
}

fn runtime_restarted(node: &mut Node) -> Result<()> {
    println!("the runtime's daemon is restarted (I3)");
    if let Some(docker) = &mut node.docker {
        // Without live-restore, dockerd ends all containers itself: e2e_docker.
        docker.keep_containers()?;
    }
    let before = node.container(POD)?;
    node.end_runtime(Signal::TERM)?;
    answers(node)?;
    node.resume_runtime()?;
    node.await_running(POD)?;
    throughout(Duration::from_secs(3), || assert_same(node, &before))?;
    answers(node)
}

fn removed(node: &Node) -> Result<()> {
    println!("the file is removed (I6)");
    let before = node.container(POD)?;
    node.remove(FILE)?;
    node.await_gone(POD)?;
    node.await_nothing_left()?;
    ensure!(!proc::alive(before.pid), "redis (pid {}) still runs", before.pid);
    Ok(())
}
