//! The conformance suite in a kubelet's own terms: steps that were done to a kubelet are done to a node on each runtime, and
//! what can be seen of the containers is compared with what the kubelet showed (`tests/golden/kubelet-1.36`).

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::{Value, json};
use stanchion_tests::{
    Backend, Node,
    pods::{self, Pod},
};

stanchion_tests::on_each_runtime! {
    containers_are_seen_as_a_kubelet_shows_them,
}

/// Each ends in a state that stays for a while: no moment has to be met.
const SCENARIOS: [&str; 6] = [
    "basic/metadata-kept",
    "restart/always-exits",
    "restart/kill-first-process",
    "restart/never-succeeded",
    "restart/onfailure-then-success",
    "images/never-pull",
];
/// The image that the recordings use, and the one with the same programs here.
const IMAGES: [(&str, &str); 1] = [("docker.io/golden/box:1", "docker.io/library/busybox:1")];

fn containers_are_seen_as_a_kubelet_shows_them(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        let node = &*node;
        // They do not touch each other: all at once.
        let faults: Vec<_> = thread::scope(|scope| {
            let started = SCENARIOS.map(|name| (name, scope.spawn(move || Scenario::read(name)?.replay(node))));
            let ended = started.into_iter().map(|(name, thread)| {
                let result = thread.join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
                result.err().map(|error| format!("{name}: {error:#}"))
            });
            ended.flatten().collect()
        });
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    })
}

struct Scenario {
    dir: PathBuf,
    file: String,
    pod: String,
}

impl Scenario {
    fn read(name: &str) -> Result<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/kubelet-1.36").join(name);
        let pod = name.rsplit('/').next().context("a scenario has a name")?.to_owned();
        Ok(Self { dir, file: format!("{pod}.yaml"), pod })
    }

    fn text(&self, file: &str) -> Result<String> {
        let text = fs::read_to_string(self.dir.join(file)).with_context(|| format!("reading {file}"))?;
        Ok(IMAGES.iter().fold(text, |text, (theirs, ours)| text.replace(theirs, ours)))
    }

    fn replay(&self, node: &Node) -> Result<()> {
        for line in self.text("steps.txt")?.lines() {
            let step = line.split_once(". ").map_or(line, |(_, step)| step);
            self.step(node, step).with_context(|| format!("step {line:?}"))?;
        }
        node.remove(&self.file)
    }

    fn step(&self, node: &Node, step: &str) -> Result<()> {
        let words: Vec<_> = step.split(' ').collect();
        match words[..] {
            ["write", manifest, "into", ..] => node.write(&self.file, self.text(manifest)?),
            ["remove", "the", "file"] => node.remove(&self.file),
            ["wait", _, "s"] => Ok(()),
            ["wait", "until", "the", "pod", "is", "Ready"] => self.await_that(node, |pod| pod.ready()),
            ["wait", "until", "phase", "is", phase] => self.await_that(node, |pod| pod.phase() == phase),
            ["wait", "until", "restartCount", "of", name, "is", count] => {
                let count: u64 = count.parse().context("a number of restarts")?;
                // Looked at more rarely than the kubelet was.
                self.await_that(node, |pod| pod.container(name)["restartCount"].as_u64() >= Some(count))
            }
            ["wait", "until", name, "runs"] => {
                self.await_that(node, |pod| !pod.container(name)["state"]["running"].is_null())
            }
            ["wait", "until", name, "waits", "with", "reason", reason] => {
                self.await_that(node, |pod| pod.container(name)["state"]["waiting"]["reason"] == reason)
            }
            ["send", "signal", "9", "to", "the", "first", "process", "of", name] => {
                let running = node.view().of_pod(&pods::on_node(&self.pod))?;
                let running = running.iter().find(|running| running.record.container() == name);
                running.with_context(|| format!("{name} does not run"))?.kill().map(drop)
            }
            ["record", recording] => self.compare(node, recording),
            ["exec", "in", ..] | ["record", ..] => {
                println!("{}: not replayed: {step}", self.pod);
                Ok(())
            }
            _ => bail!("the step is not understood"),
        }
    }

    fn await_that(&self, node: &Node, holds: impl Fn(&Pod) -> bool) -> Result<()> {
        node.until("it", || {
            let pod = node.pod(&self.pod)?;
            ensure!(holds(&pod), "{}", pod.summary());
            Ok(())
        })
    }

    fn compare(&self, node: &Node, recording: &str) -> Result<()> {
        let recorded: Value = serde_json::from_str(&self.text(recording)?).context("a recording is JSON")?;
        let expected = seen(&recorded);
        node.until("what the kubelet showed", || {
            let found = seen(&node.pod(&self.pod)?.0);
            ensure!(found == expected, "expected {expected}, found {found}");
            Ok(())
        })
    }
}

/// What of a pod's status is compared: everything that is told of its containers but ids, times and a runtime's own words.
fn seen(pod: &Value) -> Value {
    let status = &pod["status"];
    let containers = status["containerStatuses"].as_array().map_or(&[][..], Vec::as_slice);
    let container = |it: &Value| {
        json!({
            "name": it["name"], "image": it["image"], "ready": it["ready"], "started": it["started"],
            "restartCount": it["restartCount"], "state": state(&it["state"]), "lastState": state(&it["lastState"]),
        })
    };
    let containers: Vec<_> = containers.iter().map(container).collect();
    json!({ "phase": status["phase"], "qosClass": status["qosClass"], "containers": containers })
}

fn state(state: &Value) -> Value {
    let (waiting, terminated) = (&state["waiting"], &state["terminated"]);
    match () {
        () if !state["running"].is_null() => json!("running"),
        // A kubelet shows either, as its syncs fall.
        () if waiting["reason"] == "CrashLoopBackOff" => json!("in back-off"),
        () if !waiting.is_null() => json!({ "waiting": waiting["reason"] }),
        () if !terminated.is_null() => json!({ "exitCode": terminated["exitCode"], "reason": terminated["reason"] }),
        () => Value::Null,
    }
}
