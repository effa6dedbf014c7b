//! Crashes of the agent and the runtime at bad moments: in the end exactly the wanted containers run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use stanchion_tests::{
    Backend, Node,
    events::Events,
    pods::{self, on_node},
    process,
    random::Random,
    wait::{pause, throughout},
};

stanchion_tests::on_each_runtime! {
    twenty_kills_of_the_agent_lose_nothing_and_double_nothing,
    a_restart_of_the_runtime_touches_no_pod,
    a_crash_of_the_runtime_touches_no_pod,
    a_killed_shim_is_a_restart_with_a_cause,
    an_agent_that_is_told_to_stop_leaves_its_pods_running,
}

/// Pods that the test keeps changing.
const PODS: [&str; 4] = ["a", "b", "c", "d"];
/// Pod that nobody changes.
const BYSTANDER: &str = "bystander";

// R-RST-1.
fn twenty_kills_of_the_agent_lose_nothing_and_double_nothing(on: Backend) -> Result<()> {
    let mut random = Random::announced("twenty_kills");
    Node::builder().on(on).run(|node| {
        let events = Events::subscribe(&node.containerd)?;
        node.write("bystander.yaml", pods::idle(BYSTANDER, "0"))?;
        node.await_running(BYSTANDER)?;
        let untouched = node.container(BYSTANDER)?;
        let mut history = History::default();
        let mut wanted = BTreeMap::new();
        let mut revision = 0;
        for kill in 0..20 {
            // Several changes at once, so that a kill interrupts creates, updates and deletes of different pods.
            for _ in 0..random.within(1..4) {
                let pod = random.pick(&PODS);
                let file = format!("{pod}.yaml");
                if wanted.contains_key(pod) && random.below(3) == 0 {
                    wanted.remove(pod);
                    node.remove(&file)?;
                } else {
                    revision += 1;
                    wanted.insert(pod, revision.to_string());
                    node.write(&file, pods::idle(pod, &revision.to_string()))?;
                }
            }
            let moment = random.moment(0..600);
            history.follow(node, &events, moment)?;
            println!("kill {kill} after {moment:?}, wanted: {wanted:?}");
            node.agent.kill()?;
            history.read(node, &events)?;
            node.agent.start()?;
        }
        for pod in PODS {
            match wanted.get(pod) {
                Some(revision) => {
                    node.until(&format!("revision {revision} of pod {pod} to run alone"), || {
                        let running = node.container(pod)?;
                        let seen = revision_of(&running.record.spec);
                        ensure!(seen == *revision, "revision {seen} runs");
                        ensure!(node.pod(pod)?.phase() == "Running", "get pods does not say so");
                        Ok(())
                    })?;
                }
                None => node.await_gone(pod)?,
            }
        }
        history.read(node, &events)?;
        history.check()?;
        let now = node.container(BYSTANDER)?;
        ensure!(now.identity() == untouched.identity(), "the bystander was restarted: {now:?}");

        drop(events);
        for file in PODS.iter().copied().chain([BYSTANDER]) {
            node.remove(&format!("{file}.yaml"))?;
        }
        node.await_nothing_left_but(
            "lease of a killed agent's download, which containerd removes when it expires",
            |thing| thing.starts_with("lease") && thing.contains("containerd.io/gc.expire="),
        )
    })
}

/// Task events of containerd, in order. Docker's containers are tasks of containerd too.
#[derive(Debug, Default)]
struct History {
    running: BTreeMap<String, BTreeSet<String>>,
    /// Containers started, by pod and revision, each with its end.
    starts: BTreeMap<(String, String), Vec<String>>,
    faults: Vec<String>,
}

impl History {
    /// Reads events for `during`, often enough to see each container's record before it is removed.
    fn follow(&mut self, node: &Node, events: &Events, during: Duration) -> Result<()> {
        let started = Instant::now();
        while let Some(left) = during.checked_sub(started.elapsed()) {
            self.read(node, events)?;
            pause(left.min(Duration::from_millis(5)));
        }
        Ok(())
    }

    fn read(&mut self, node: &Node, events: &Events) -> Result<()> {
        let view = node.view();
        for event in events.drain().into_iter().filter(|event| event.namespace == node.task_namespace()) {
            match event.topic.as_str() {
                "/tasks/start" => {
                    let record = view.record(&event.container)?.filter(|record| !record.container().is_empty());
                    let Some(record) = record else { continue };
                    let revision = revision_of(&record.spec);
                    let start = format!("{} at {}", event.container, event.at);
                    self.starts.entry((record.pod().to_owned(), revision)).or_default().push(start);
                    let running = self.running.entry(record.pod().to_owned()).or_default();
                    if !running.is_empty() {
                        self.faults.push(format!("{} started while {running:?} ran (I1)", event.container));
                    }
                    running.insert(event.container);
                }
                "/tasks/exit" => {
                    for running in self.running.values_mut() {
                        running.remove(&event.container);
                    }
                    let start = format!("{} at ", event.container);
                    for note in self.starts.values_mut().flatten().filter(|note| note.starts_with(&start)) {
                        note.push_str(&format!(" (ended at {})", event.at));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(self.faults.is_empty(), "{:?}", self.faults);
        ensure!(!self.starts.is_empty(), "no start was seen at all");
        let doubled: Vec<_> = self.starts.iter().filter(|(_, starts)| starts.len() > 1).collect();
        ensure!(doubled.is_empty(), "restarted without a cause: {doubled:?}");
        Ok(())
    }
}

/// Returns `REVISION` from the container's environment, which the manifest sets.
fn revision_of(spec: &serde_json::Value) -> String {
    let environment = spec["process"]["env"].as_array().map_or(&[][..], Vec::as_slice);
    let mut values = environment.iter().filter_map(|pair| pair.as_str()?.strip_prefix("REVISION="));
    values.next_back().unwrap_or_default().to_owned()
}

// R-LOOP-6.
fn a_restart_of_the_runtime_touches_no_pod(on: Backend) -> Result<()> {
    outage(on, Signal::TERM)
}

fn a_crash_of_the_runtime_touches_no_pod(on: Backend) -> Result<()> {
    outage(on, Signal::KILL)
}

/// Ends the runtime's daemon. Meanwhile one manifest is added, one is removed and one stays.
fn outage(on: Backend, signal: Signal) -> Result<()> {
    Node::builder().on(on).run(|node| {
        if let Some(docker) = &mut node.docker {
            // Without live-restore, dockerd ends all containers itself: e2e_docker.
            docker.keep_containers()?;
        }
        for name in ["stays", "goes"] {
            node.write(&format!("{name}.yaml"), pods::idle(name, "1"))?;
            node.await_running(name)?;
        }
        let before = node.container("stays")?;
        node.end_runtime(signal)?;
        node.await_said(&["backends"], &[&format!("{}.sock", on.name())])?;
        node.write("comes.yaml", pods::idle("comes", "1"))?;
        node.remove("goes.yaml")?;
        let pods = node.said(&["get", "pods"])?;
        ensure!(pods.contains(&on_node("stays")), "without its runtime, get pods forgets a pod: {pods}");
        node.resume_runtime()?;
        node.await_running("comes")?;
        node.await_gone("goes")?;
        throughout(Duration::from_secs(2), || {
            let now = node.container("stays")?;
            ensure!(now.identity() == before.identity(), "{:?} became {:?}", before.identity(), now.identity());
            Ok(())
        })?;
        for name in ["stays", "comes"] {
            node.remove(&format!("{name}.yaml"))?;
        }
        node.await_nothing_left()
    })
}

fn a_killed_shim_is_a_restart_with_a_cause(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        let before = node.container("pod")?;
        let shims = stanchion_tests::remains::processes(node.names())?;
        let shims: Vec<_> = shims.iter().filter(|seen| seen.command.contains("containerd-shim")).collect();
        let needed = match on {
            Backend::Containerd | Backend::K3s => 1,
            // A second container holds the pod's namespaces.
            Backend::Docker => 2,
        };
        ensure!(shims.len() == needed, "one pod has these shims: {shims:?}");
        shims.iter().try_for_each(|shim| process::kill(shim.pid))?;
        node.until("the pod to run again", || {
            let now = node.container("pod")?;
            ensure!(now.identity() != before.identity(), "the old container is still listed");
            Ok(())
        })?;
        node.await_running("pod")?;
        node.remove("pod.yaml")?;
        node.await_nothing_left()
    })
}

// R-RST-1.
fn an_agent_that_is_told_to_stop_leaves_its_pods_running(on: Backend) -> Result<()> {
    Node::builder().on(on).run(|node| {
        node.write("pod.yaml", pods::idle("pod", "1"))?;
        node.await_running("pod")?;
        let before = node.container("pod")?;
        let status = node.agent.stop()?;
        ensure!(status.success(), "it ended with {status}");
        ensure!(node.container("pod")?.identity() == before.identity(), "the pod was touched");
        node.remove("pod.yaml")?;
        node.agent.start()?;
        node.await_nothing_left()
    })
}
