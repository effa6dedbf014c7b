//! Failures of dockerd, and changes that others make in Docker behind the agent's back.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use stanchion_tests::{
    Backend, Node,
    ctr::Running,
    docker::{Deaf, Engine},
    pods::{self, on_node},
    proc,
    process::Process,
    redis,
    wait::throughout,
};

fn on_docker(test: impl FnOnce(&mut Node) -> Result<()>) -> Result<()> {
    Node::builder().on(Backend::Docker).run(test)
}

fn engine(node: &Node) -> Result<Engine> {
    Ok(node.docker.as_ref().context("a node on Docker")?.engine())
}

/// Returns all containers of a pod in any state, including its sandbox.
fn all_of(engine: &Engine, pod: &str) -> Result<Vec<Value>> {
    let mut all = engine.all()?;
    all.retain(|one| one["Labels"]["io.kubernetes.pod.name"] == on_node(pod));
    Ok(all)
}

fn sandbox_of(engine: &Engine, pod: &str) -> Result<String> {
    let all = all_of(engine, pod)?;
    let mut sandboxes = all.iter().filter(|one| one["Labels"]["stanchion.dev/kind"] == "sandbox");
    let id = sandboxes.next().and_then(|one| one["Id"].as_str()).context("the pod has no sandbox")?;
    Ok(id.to_owned())
}

fn started(node: &Node, pod: &str) -> Result<Running> {
    node.write(&format!("{pod}.yaml"), pods::idle(pod, "1"))?;
    node.await_running(pod)?;
    node.container(pod)
}

/// Waits until the pod runs in another container than `old`, and checks that this one stays.
fn healed(node: &Node, pod: &str, old: &Running) -> Result<Running> {
    let now = node.until(&format!("another container of pod {pod}"), || {
        let now = node.container(pod)?;
        ensure!(now.identity() != old.identity(), "still {:?}", old.identity());
        Ok(now)
    })?;
    node.await_running(pod)?;
    throughout(Duration::from_secs(2), || unchanged(node, pod, &now))?;
    Ok(now)
}

fn unchanged(node: &Node, pod: &str, before: &Running) -> Result<()> {
    let now = node.container(pod)?;
    ensure!(now.identity() == before.identity(), "{:?} became {:?}", before.identity(), now.identity());
    Ok(())
}

/// Starts a container with labels like the agent's, but of another namespace.
fn stranger(node: &Node) -> Result<String> {
    let engine = engine(node)?;
    engine.load(&node.fixtures.as_ref().context("a node with fixtures")?.docker_archive())?;
    let labels = json!({
        "stanchion.dev/kind": "container", "stanchion.dev/namespace": "another", "stanchion.dev/name": "main",
        "io.kubernetes.pod.name": "gone-node-1", "io.kubernetes.pod.uid": "1", "io.kubernetes.container.name": "main",
    });
    engine.run("stranger", "preloaded/busybox:docker", &["sleep", "1000"], &labels)
}

// R-COEX-10.
#[test]
fn a_restart_of_dockerd_that_ends_all_containers_is_healed() -> Result<()> {
    on_docker(|node| {
        let before = started(node, "stays")?;
        started(node, "goes")?;
        node.end_runtime(Signal::TERM)?;
        ensure!(!proc::alive(before.pid), "dockerd went, and left its containers");
        node.await_said(&["backends"], &["docker.sock"])?;
        node.write("comes.yaml", pods::idle("comes", "1"))?;
        node.remove("goes.yaml")?;
        let shown = node.said(&["get", "pods"])?;
        ensure!(shown.contains(&on_node("stays")), "without Docker, get pods forgets a pod: {shown}");
        node.resume_runtime()?;
        healed(node, "stays", &before)?;
        node.await_running("comes")?;
        node.await_gone("goes")?;
        for name in ["stays", "comes"] {
            node.remove(&format!("{name}.yaml"))?;
        }
        node.await_nothing_left()
    })
}

// R-LOOP-4, R-COEX-10.
#[test]
fn events_that_are_missed_are_made_up_for() -> Result<()> {
    let mut node = Node::builder().on(Backend::Docker).without_agent()?;
    let docker = node.docker.as_ref().context("a node on Docker")?.socket();
    let deaf = Deaf::start(node.path("deaf.sock"), docker)?;
    fs::create_dir(node.path("conf.d"))?;
    fs::write(node.path("conf.d/deaf.toml"), format!("[backend.docker]\nsocket = {:?}\n", deaf.socket()))?;
    node.agent.start()?;
    let engine = engine(&node)?;
    let first = started(&node, "pod")?;
    println!("a container ends");
    first.kill()?;
    let second = healed(&node, "pod", &first)?;
    println!("docker rm -f of all that the pod has");
    for one in all_of(&engine, "pod")? {
        engine.remove(one["Id"].as_str().context("a container has an id")?)?;
    }
    healed(&node, "pod", &second)?;
    node.remove("pod.yaml")?;
    node.await_nothing_left()
}

#[test]
fn what_is_removed_behind_our_back_comes_back() -> Result<()> {
    on_docker(|node| {
        let engine = engine(node)?;
        let first = started(node, "pod")?;
        println!("docker rm -f of the container");
        engine.remove(&first.record.id)?;
        let second = healed(node, "pod", &first)?;

        println!("docker rm -f of the sandbox, whose network goes with it");
        engine.remove(&sandbox_of(&engine, "pod")?)?;
        let third = healed(node, "pod", &second)?;

        println!("docker rm -f of all that the pod has");
        for one in all_of(&engine, "pod")? {
            engine.remove(one["Id"].as_str().context("a container has an id")?)?;
        }
        healed(node, "pod", &third)?;
        let sandboxes = all_of(&engine, "pod")?;
        let sandboxes = sandboxes.iter().filter(|one| one["Labels"]["stanchion.dev/kind"] == "sandbox").count();
        ensure!(sandboxes == 1, "one pod has {sandboxes} sandboxes");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

#[test]
fn a_prune_of_everything_is_healed() -> Result<()> {
    on_docker(|node| {
        let engine = engine(node)?;
        let first = started(node, "pod")?;
        // `prune` removes the dead container, and with it the agent's record of that run.
        first.kill()?;
        let second = healed(node, "pod", &first)?;
        println!("docker system prune -a -f beside a pod that runs");
        engine.prune()?;
        throughout(Duration::from_secs(2), || unchanged(node, "pod", &second))?;

        println!("... and without any container that uses an image");
        for id in engine.containers()? {
            engine.remove(&id)?;
        }
        engine.prune()?;
        let third = healed(node, "pod", &second)?;
        ensure!(third.record.image == "docker.io/library/busybox:latest", "{} runs", third.record.image);
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

// R-COEX-4, R-COEX-10.
#[test]
fn containers_of_others_are_never_touched() -> Result<()> {
    on_docker(|node| {
        let engine = engine(node)?;
        let stranger = stranger(node)?;
        let before = engine.get(&format!("/containers/{stranger}/json"))?["State"].clone();
        let first = started(node, "pod")?;
        first.kill()?;
        healed(node, "pod", &first)?;
        let shown = node.said(&["get", "pods"])?;
        ensure!(!shown.contains("gone-node-1"), "another's container counts as a pod of ours: {shown}");
        for one in all_of(&engine, "pod")? {
            ensure!(one["Labels"].get("io.kubernetes.docker.type").is_none(), "it looks like kubelet's: {one}");
            let names = one["Names"].to_string();
            ensure!(!names.contains("/k8s_"), "a kubelet would take {names} for its own");
        }
        node.agent.kill()?;
        node.remove("pod.yaml")?;
        node.agent.start()?;
        node.await_gone("pod")?;
        node.until("nothing but the stranger to be left", || {
            let left = engine.containers()?;
            ensure!(left == [stranger.clone()], "{left:?}");
            Ok(())
        })?;
        let after = engine.get(&format!("/containers/{stranger}/json"))?["State"].clone();
        ensure!(before == after, "another's container went from {before} to {after}");
        engine.remove(&stranger)?;
        node.await_nothing_left()
    })
}

#[test]
fn a_pod_gets_what_its_manifest_says() -> Result<()> {
    on_docker(|node| {
        let port = node.names().port(3);
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod\nspec:\n  hostname: chosen\n  containers:\n  - name: \
             main\n    image: redis\n    ports:\n    - {{containerPort: 6379, hostPort: {port}}}\n    resources:\n      \
             limits: {{memory: 64Mi, cpu: 250m}}\n"
        );
        node.write("pod.yaml", manifest)?;
        let running = node.await_running("pod")?;
        node.until("redis to answer at the host port", || {
            let answer = redis::ask(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port), "PING")?;
            ensure!(answer == "+PONG", "it answers {answer:?}");
            Ok(())
        })?;
        let (memory, cpu) = (proc::memory_limit(running[0].pid)?, proc::cpu_quota(running[0].pid)?);
        ensure!((&*memory, &*cpu) == ("67108864", "25000 100000"), "memory limit {memory}, CPU quota {cpu}");
        let found = engine(node)?.get(&format!("/containers/{}/json", running[0].record.id))?;
        let host = &found["HostConfig"];
        ensure!(host["RestartPolicy"]["Name"] == "no", "Docker restarts too: {}", host["RestartPolicy"]);
        ensure!(host["LogConfig"]["Config"]["max-size"].is_string(), "the log grows for ever: {}", host["LogConfig"]);
        let parent = host["CgroupParent"].as_str().unwrap_or_default();
        let below = parent.trim_start_matches('/').strip_prefix(node.names().cgroup_root.trim_start_matches('/'));
        let is_pods = below.is_some_and(|below| below.starts_with(['/', '-']) && below[1..].starts_with("pod"));
        ensure!(is_pods, "its cgroup is below {parent}");
        node.await_said(&["exec", "pod-node-1", "--", "hostname"], &["chosen\n"])?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

#[test]
fn output_is_shown_with_times_followed_and_of_the_previous_container() -> Result<()> {
    on_docker(|node| {
        let script = "echo started by $$ at $(cat /proc/uptime); trap 'exit 0' TERM; while [ ! -e /go ]; do sleep 0.1; \
                      done; echo went; while :; do sleep 3600 & wait $!; done";
        node.write("pod.yaml", pods::shell("pod", script, ""))?;
        node.await_running("pod")?;
        node.await_said(&["logs", "pod-node-1"], &["started by"])?;
        let first = node.agent.text(&["logs", "pod-node-1"])?;
        let timed = node.agent.text(&["logs", "--timestamps", "pod-node-1"])?;
        ensure!(timed.starts_with("20") && timed.ends_with(&first), "with times it is {timed:?}");

        let followed = node.path("followed");
        let mut command = node.agent.command(&["logs", "-f", "pod-node-1"])?;
        let _process = Process::start("stanchion logs -f", &mut command, &followed)?;
        node.agent.text(&["exec", "pod-node-1", "--", "touch", "/go"])?;
        node.until("logs -f to go on", || {
            let text = fs::read_to_string(&followed)?;
            ensure!(text == format!("{first}went\n"), "it printed {text:?}");
            Ok(())
        })?;

        let old = node.container("pod")?;
        old.kill()?;
        healed(node, "pod", &old)?;
        let now = node.agent.text(&["logs", "pod-node-1"])?;
        ensure!(now != first && now.starts_with("started by"), "the new container wrote {now:?}");
        let previous = node.agent.text(&["logs", "--previous", "pod-node-1"])?;
        ensure!(previous == format!("{first}went\n"), "--previous prints {previous:?}");
        Ok(())
    })
}

/// Makes Docker forget that containers run, as when it is killed after containerd started them and before it saved
/// their state.
fn forget_starts(node: &mut Node, ids: &[String]) -> Result<()> {
    node.end_runtime(Signal::KILL)?;
    for id in ids {
        let path = node.path("docker/data/containers").join(id).join("config.v2.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: Value = serde_json::from_slice(&text)?;
        config["State"]["Running"] = false.into();
        config["State"]["Pid"] = 0.into();
        config["State"]["StartedAt"] = "0001-01-01T00:00:00Z".into();
        fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    node.resume_runtime()
}

fn ids_of(node: &Node, pod: &str) -> Result<Vec<String>> {
    Ok(all_of(&engine(node)?, pod)?.iter().filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect())
}

#[test]
fn what_docker_forgot_to_have_started_runs_beside_nothing_and_goes() -> Result<()> {
    on_docker(|node| {
        node.docker.as_mut().context("a node on Docker")?.keep_containers()?;
        for edits in [false, true] {
            println!(
                "Docker forgets that it has started a container{}",
                if edits { ", and the pod is changed" } else { "" }
            );
            let before = started(node, "pod")?;
            node.agent.stop()?;
            forget_starts(node, std::slice::from_ref(&before.record.id))?;
            ensure!(proc::alive(before.pid), "Docker has ended it: it has not forgotten it");
            if edits {
                node.write("pod.yaml", pods::idle("pod", "2"))?;
            }
            node.agent.start()?;
            if edits {
                // The agent may restart the old revision until the new revision's image is ready.
                node.until("a container of the new revision", || {
                    let environment = fs::read(format!("/proc/{}/environ", node.container("pod")?.pid))?;
                    ensure!(environment.split(|byte| *byte == 0).any(|it| it == b"REVISION=2"), "it is the old one's");
                    Ok(())
                })?;
            }
            healed(node, "pod", &before)?;
            ensure!(!proc::alive(before.pid), "two containers of one pod run (I1)");
            node.remove("pod.yaml")?;
            node.await_nothing_left()?;
        }

        println!("Docker forgets all of a pod, whose manifest is removed");
        let before = started(node, "pod")?;
        let ids = ids_of(node, "pod")?;
        ensure!(ids.len() == 2, "a sandbox and a container: {ids:?}");
        node.agent.stop()?;
        forget_starts(node, &ids)?;
        ensure!(proc::alive(before.pid), "Docker has ended it: it has not forgotten it");
        node.remove("pod.yaml")?;
        node.agent.start()?;
        node.await_nothing_left()
    })
}
