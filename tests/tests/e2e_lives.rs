//! Container lifecycle on real runtimes, with the manifests of `tests/manifests`: init containers, sidecars, hooks,
//! probes, termination messages, `activeDeadlineSeconds`, restart rules.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stanchion_tests::{Backend, Node, pods};

stanchion_tests::on_each_runtime! {
    init_containers_run_in_order_and_once,
    sidecars_start_first_and_stop_last,
    hooks_run_and_an_agent_that_dies_in_one_kills_nothing,
    probes_say_what_is_so_and_restart_what_is_dead,
    last_words_are_kept,
    a_deadline_ends_a_pod_for_good,
    rules_restart_a_container_or_all,
}

macro_rules! manifest {
    ($name:literal) => {
        include_str!(concat!("../manifests/", $name, ".yaml"))
    };
}

/// Returns the manifest with the node's directory in place of `/var/lib/example`.
fn on(node: &Node, manifest: &str) -> String {
    manifest.replace("/var/lib/example", &node.path("example").display().to_string())
}

fn trace(node: &Node) -> Result<Vec<String>> {
    let path = node.path("example/trace/trace");
    let text = fs::read_to_string(&path).with_context(|| format!("{} is not there", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn await_ready(node: &Node, name: &str) -> Result<()> {
    node.until(&format!("pod {name} to be ready"), || {
        let pod = node.pod(name)?;
        ensure!(pod.phase() == "Running" && condition(&pod.0, "Ready") == "True", "{}", pod.summary());
        Ok(())
    })
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let found = conditions.iter().find(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

fn init<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let statuses = pod["status"]["initContainerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    statuses.iter().find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn init_containers_run_in_order_and_once(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", manifest!("init-containers"))?;
        await_ready(node, "init-containers")?;
        let name = pods::on_node("init-containers");
        ensure!(node.agent.text(&["logs", &name])? == "first\nsecond\n", "R-INIT-1");
        ensure!(node.agent.text(&["logs", &name, "-c", "first"])? == "said by first\n");
        let pod = node.pod("init-containers")?;
        let ended = &init(&pod.0, "first")["state"]["terminated"];
        ensure!(ended["exitCode"] == 0 && ended["reason"] == "Completed", "R-CS-8: {}", pod.summary());
        node.await_said(&["get", "pods"], &["1/1", "Running"])?;

        println!("neither a crash nor another agent runs them again");
        node.container("init-containers")?.kill()?;
        node.until("a restart", || {
            let pod = node.pod("init-containers")?;
            ensure!(pod.restarts() == 1 && pod.ready(), "{}", pod.summary());
            Ok(())
        })?;
        node.agent.kill()?;
        node.agent.start()?;
        await_ready(node, "init-containers")?;
        let pod = node.pod("init-containers")?;
        ensure!(init(&pod.0, "second")["restartCount"] == 0, "R-INIT-4: {}", pod.summary());
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

fn sidecars_start_first_and_stop_last(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", on(node, manifest!("sidecars")))?;
        node.await_said(&["get", "pods"], &["0/3", "Init:0/3"])?;
        await_ready(node, "sidecars")?;
        // Containers without probes are ready before they have written to the trace.
        node.until("R-INIT-2", || {
            let trace = trace(node)?;
            ensure!(trace == ["proxy", "between", "log", "main"], "{trace:?}");
            Ok(())
        })?;
        node.await_said(&["get", "pods"], &["3/3", "Running"])?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()?;
        let stopped = trace(node)?.split_off(4);
        ensure!(stopped == ["main stops", "log stops", "proxy stops"], "R-TERM-3: {stopped:?}");
        Ok(())
    })
}

fn hooks_run_and_an_agent_that_dies_in_one_kills_nothing(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", on(node, manifest!("hooks")))?;
        node.until("main to run", || {
            let running = node.view().of_pod(&pods::on_node("hooks"))?;
            ensure!(running.len() == 1, "{running:?}");
            Ok(())
        })?;
        let main = node.container("hooks")?;
        println!("the agent dies while the hook runs; the next one runs it again");
        node.agent.kill()?;
        node.agent.start()?;
        await_ready(node, "hooks")?;
        let running = node.view().of_pod(&pods::on_node("hooks"))?;
        ensure!(running.iter().any(|it| it.identity() == main.identity()), "I3: {running:?}");
        let seen = trace(node)?;
        ensure!(seen.last().is_some_and(|last| last == "web"), "R-HOOK-1: {seen:?}");
        ensure!(seen.first().is_some_and(|first| first == "main is set up"), "R-HOOK-1: {seen:?}");
        node.remove("pod.yaml")?;
        node.await_nothing_left()?;
        let seen = trace(node)?;
        ensure!(seen.ends_with(&["main is drained".to_owned(), "main stops".to_owned()]), "R-HOOK-2: {seen:?}");
        Ok(())
    })
}

fn probes_say_what_is_so_and_restart_what_is_dead(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", manifest!("probes"))?;
        await_ready(node, "probes")?;
        let name = pods::on_node("probes");
        let exec = |command: &[&str]| node.agent.text(&[&["exec", &name, "--"], command].concat());
        let becomes = |status: &'static str| {
            node.until("readiness to change", || {
                let pod = node.pod("probes")?;
                ensure!(condition(&pod.0, "Ready") == status, "{}", pod.summary());
                Ok(())
            })
        };
        exec(&["rm", "/tmp/ready"])?;
        becomes("False")?;
        node.await_said(&["describe", "pod", &name], &["Readiness probe failed: cat: can't open '/tmp/ready'"])?;
        exec(&["touch", "/tmp/ready"])?;
        becomes("True")?;

        println!("the server loses its page: it is restarted");
        let before = node.container("probes")?;
        exec(&["rm", "/www/health"])?;
        node.until("a restart", || {
            let pod = node.pod("probes")?;
            ensure!(pod.restarts() == 1 && condition(&pod.0, "Ready") == "True", "{}", pod.summary());
            Ok(())
        })?;
        let said = ["HTTP probe failed with statuscode: 404", "Container web failed liveness probe, will be restarted"];
        node.await_said(&["describe", "pod", &name], &said)?;
        let after = node.container("probes")?;
        ensure!(after.identity() != before.identity(), "R-PRB-10");
        Ok(())
    })
}

fn last_words_are_kept(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", manifest!("termination-messages"))?;
        node.until("the pod to fail", || {
            let pod = node.pod("termination-messages")?;
            ensure!(pod.phase() == "Failed", "{}", pod.summary());
            Ok(())
        })?;
        let pod = node.pod("termination-messages")?;
        let words = |name: &str| pod.container(name)["state"]["terminated"]["message"].as_str().unwrap_or_default();
        ensure!(words("file") == "said at the end", "R-TMSG-1: {}", pod.summary());
        ensure!(words("own-path") == "own path", "R-TMSG-1: {}", pod.summary());
        ensure!(words("log") == "the log says it\n", "R-TMSG-3: {}", pod.summary());
        // The pod's four containers share 12 KiB.
        ensure!(words("long").len() == 3072, "R-TMSG-2: {}", words("long").len());
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

fn a_deadline_ends_a_pod_for_good(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", manifest!("active-deadline"))?;
        await_ready(node, "active-deadline")?;
        let failed = |node: &Node| {
            node.until("the pod to fail", || {
                let pod = node.pod("active-deadline")?;
                let status = &pod.0["status"];
                ensure!(pod.phase() == "Failed" && status["reason"] == "DeadlineExceeded", "{}", pod.summary());
                let ended = &pod.container("main")["state"]["terminated"];
                ensure!(ended["exitCode"] == 4, "R-ADL-1: {}", pod.summary());
                Ok(())
            })
        };
        failed(node)?;
        node.agent.kill()?;
        node.agent.start()?;
        failed(node)?;
        ensure!(node.view().of_pod(&pods::on_node("active-deadline"))?.is_empty(), "R-WRK-3: it runs again");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

fn rules_restart_a_container_or_all(runtime: Backend) -> Result<()> {
    Node::builder().on(runtime).run(|node| {
        node.write("pod.yaml", manifest!("restart-rules"))?;
        node.until("all of it to start again", || {
            let pod = node.pod("restart-rules")?;
            let counts = ["leader", "once", "follower"].map(|name| pod.container(name)["restartCount"].as_u64());
            ensure!(counts == [Some(1); 3], "R-RSP-4: {}", pod.summary());
            ensure!(init(&pod.0, "setup")["restartCount"] == 1, "R-RSP-4: {}", pod.summary());
            ensure!(pod.container("follower")["ready"] == true, "{}", pod.summary());
            let ended = &pod.container("once")["state"]["terminated"];
            ensure!(ended["exitCode"] == 1, "R-RSP-1: {}", pod.summary());
            Ok(())
        })?;
        let name = pods::on_node("restart-rules");
        let seen = node.agent.text(&["exec", &name, "-c", "leader", "--", "cat", "/state/trace"])?;
        ensure!(seen == "setup\nsetup\n", "R-RSP-4: {seen:?}");
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}
