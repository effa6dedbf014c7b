//! Comparison with a kubelet: replays the recorded steps (`tests/golden/kubelet-1.36`) on a node of each runtime, and
//! compares what the node shows of its pods, and what their containers see, with the recordings.
//!
//! `tests/golden/differences.yaml` lists each place where Stanchion differs from a kubelet on purpose.

#[path = "e2e_kubelet/events.rs"]
mod events;
#[path = "e2e_kubelet/inside.rs"]
mod inside;
#[path = "e2e_kubelet/listed.rs"]
mod listed;
#[path = "e2e_kubelet/replay.rs"]
mod replay;
#[path = "e2e_kubelet/sandbox.rs"]
mod sandbox;
#[path = "e2e_kubelet/scenario.rs"]
mod scenario;
#[path = "e2e_kubelet/watch.rs"]
mod watch;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use stanchion_tests::{Backend, Node, golden::images, wait::lock};

use crate::{listed::Listed, replay::Replay, scenario::Scenario};

stanchion_tests::on_each_runtime! {
    a_node_shows_what_a_kubelet_shows,
}

/// Number of scenarios that run concurrently; they are independent.
const AT_ONCE: usize = 20;

/// Lock for one runtime at a time, because scenarios measure times.
static TURN: Mutex<()> = Mutex::new(());

/// Attempts per scenario: on a busy machine, short states can be missed.
const TRIES: usize = 3;

fn a_node_shows_what_a_kubelet_shows(on: Backend) -> Result<()> {
    let _turn = lock(&TURN);
    let mut left = scenarios()?;
    let mut said = Vec::new();
    for _ in 0..TRIES {
        let faults = replay_all(on, left)?;
        said = faults.iter().map(|(_, error)| format!("{error:#}")).collect();
        left = faults.into_iter().map(|(scenario, _)| scenario).collect();
        if left.is_empty() {
            return Ok(());
        }
        println!("again: {}", said.join("\n"));
    }
    bail!("{} of the scenarios:\n{}", said.len(), said.join("\n"))
}

/// Replays the scenarios on a fresh node and returns those that differ, with their errors.
fn replay_all(on: Backend, scenarios: Vec<Scenario>) -> Result<Vec<(Scenario, anyhow::Error)>> {
    let listed = Listed::read(&golden().join("differences.yaml"), on)?;
    let faults = Mutex::new(Vec::new());
    Node::builder().on(on).run(|node| {
        let node = &*node;
        preload(node)?;
        let queue = Mutex::new(scenarios);
        let work = || {
            let next = || lock(&queue).pop();
            while let Some(scenario) = next() {
                if let Some(error) = fault(node, &scenario, &listed) {
                    lock(&faults).push((scenario, error));
                }
            }
        };
        thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
        Ok(())
    })?;
    Ok(faults.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Replays one scenario and returns what differs.
fn fault(node: &Node, scenario: &Scenario, listed: &Listed) -> Option<anyhow::Error> {
    let replayed = Replay::new(node, scenario, listed).and_then(Replay::run);
    replayed.err().map(|error| error.context(scenario.name.clone()))
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Returns all recordings, or those whose names contain a part of `STANCHION_SCENARIOS`. The longest come last, because
/// the threads take from the end.
fn scenarios() -> Result<Vec<Scenario>> {
    let root = golden().join("kubelet-1.36");
    let wanted = std::env::var("STANCHION_SCENARIOS").unwrap_or_default();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|part| name.contains(part));
    let mut scenarios = Vec::new();
    for area in entries(&root)?.into_iter().filter(|path| path.is_dir()) {
        for dir in entries(&area)? {
            let scenario = Scenario::read(&root, &dir)?;
            scenarios.extend(Some(scenario).filter(|it| is_wanted(&it.name)));
        }
    }
    scenarios.sort_by_key(Scenario::length);
    ensure!(!scenarios.is_empty(), "no recordings in {}", root.display());
    Ok(scenarios)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = || format!("cannot read {}", dir.display());
    let entries = fs::read_dir(dir).with_context(failed)?;
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>().with_context(failed)?;
    paths.sort();
    Ok(paths)
}

/// Imports the recordings' images into the node's runtime, as they were on the kubelet's node.
fn preload(node: &Node) -> Result<()> {
    let names = images::write(&node.path("preload"))?;
    node.until("the images to be imported", || {
        let there = node.view().images()?;
        let missing = names.iter().find(|name| !there.iter().any(|it| name.ends_with(it.as_str())));
        ensure!(missing.is_none(), "{missing:?} is missing");
        Ok(())
    })
}
