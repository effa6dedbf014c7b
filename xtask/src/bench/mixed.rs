//! Benchmark of two backends: each round starts pods on each of them alone, then on both at once.

use std::{collections::BTreeSet, fmt, fs, thread};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use stanchion_tests::{Backend, Node, docker, events::Events, pods, proc, view::View, wait::pause};

use super::{
    plain::{Plain, millis},
    rounds::{SETTLE, await_shown},
    table::Samples,
};
use crate::{interrupt::Interrupt, say};

/// Backends of a mixed node. Pods without `runtimeClassName` run on the first.
const BACKENDS: [Backend; 2] = [Backend::Docker, Backend::Containerd];

/// Times from all manifests written to the last process started, in milliseconds.
#[derive(Debug)]
pub struct Mixed {
    /// Pods on each backend.
    each: usize,
    /// Times by backend, while the other is empty.
    alone: [Samples; 2],
    both: Samples,
    /// Load of all cores, per cent: with each backend alone, then with both.
    busy: [Samples; 3],
    /// Times of the runtimes' own clients for the same containers: each alone, then both.
    plain: [Samples; 3],
}

impl Mixed {
    /// Measures with `each` pods on each backend.
    pub fn measure(node: &Node, each: usize, rounds: usize, interrupt: &Interrupt) -> Result<Self> {
        let events = Events::subscribe(&node.containerd)?;
        // The first pods pull their image and make the bridge, which must not be measured.
        round(node, &events, 1, &BACKENDS)?;
        let mut mixed = Self {
            each,
            alone: Default::default(),
            both: Samples::default(),
            busy: Default::default(),
            plain: Default::default(),
        };
        let plain = [Plain::new(node, BACKENDS[0])?, Plain::new(node, BACKENDS[1])?];
        for number in 1..=rounds {
            say(format!("round {number} of {rounds}: {each} on each backend alone, then on both"));
            for (index, backend) in BACKENDS.iter().enumerate() {
                ensure!(!interrupt.happened(), "interrupted");
                let alone = round(node, &events, each, &[*backend])?;
                mixed.alone[index].add(alone.took);
                mixed.busy[index].add(alone.busy);
            }
            ensure!(!interrupt.happened(), "interrupted");
            let both = round(node, &events, each, &BACKENDS)?;
            mixed.both.add(both.took);
            mixed.busy[2].add(both.busy);
            let [first, second] = plain.each_ref();
            for (samples, on) in mixed.plain.iter_mut().zip([&[first][..], &[second], &[first, second]]) {
                ensure!(!interrupt.happened(), "interrupted");
                samples.add(Plain::many(on, each, &events)?);
            }
        }
        Ok(mixed)
    }
}

/// Time and load from all manifests written to the last process started.
struct Round {
    /// Time, milliseconds.
    took: f64,
    /// Load of all cores, per cent.
    busy: f64,
}

/// Writes the manifests of pods on these backends all at once, waits until the pods run, and removes them.
fn round(node: &Node, events: &Events, each: usize, on: &[Backend]) -> Result<Round> {
    let names: Vec<_> = on.iter().flat_map(|on| (0..each).map(move |i| (format!("{}-{i}", on.name()), *on))).collect();
    let drafts = node.path("drafts");
    fs::create_dir_all(&drafts)?;
    for (name, on) in &names {
        fs::write(drafts.join(file(name)), manifest(name, *on))?;
    }
    pause(SETTLE);
    events.forget();
    let (written, idle) = (Timestamp::now(), proc::idle()?);
    for (name, _) in &names {
        fs::rename(drafts.join(file(name)), node.manifest(&file(name)))?;
    }
    let namespaces = [docker::NAMESPACE, node.names().namespace.as_str()];
    // On Docker, sandboxes are containers too.
    let containers: usize = on.iter().map(|on| if *on == Backend::Docker { 2 * each } else { each }).sum();
    let (mut up, mut last) = (BTreeSet::new(), written);
    while up.len() < containers {
        let event = events.next_of(&namespaces, "/tasks/start")?;
        last = last.max(event.at);
        up.insert(event.container);
    }
    let idle = proc::idle()?.saturating_sub(idle).as_secs_f64() * 1000.0;
    for (name, _) in &names {
        await_shown(node, name)?;
    }
    for (name, _) in &names {
        node.remove(&file(name))?;
    }
    node.until("all pods to be gone", || {
        let left: Vec<_> = node.views().iter().map(View::containers).collect::<Result<_>>()?;
        let shown = node.pod_names()?;
        ensure!(left.iter().all(Vec::is_empty) && shown.is_empty(), "there are {left:?} and {shown:?}");
        Ok(())
    })?;
    let took = millis(written, last);
    let cores = thread::available_parallelism()?.get() as f64;
    Ok(Round { took, busy: 100.0 - idle / (took * cores) * 100.0 })
}

fn manifest(name: &str, on: Backend) -> String {
    format!("{}  runtimeClassName: {}\n", pods::idle(name, "1"), on.name())
}

fn file(name: &str) -> String {
    format!("{name}.yaml")
}

impl fmt::Display for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = BACKENDS.map(Backend::name);
        writeln!(f, "### two backends\n\nAll pods at once → last process started, p50.\n")?;
        writeln!(
            f,
            "| by | pods on each | {first} alone | {second} alone | both at once | ratio to the slower | all cores busy, each time | rounds |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        let busy = self.busy.each_ref().map(|samples| format!("{:.0} %", samples.at(0.5))).join(", ");
        let [first, second] = &self.alone;
        let ours = [first, second, &self.both].map(|samples| samples.at(0.5));
        let plain = self.plain.each_ref().map(|samples| samples.at(0.5));
        for (by, [first, second, both], busy) in
            [("the agent", ours, busy.as_str()), ("`docker run`, `ctr run`", plain, "")]
        {
            let (each, ratio, rounds) = (self.each, both / first.max(second), self.both.len());
            writeln!(
                f,
                "| {by} | {each} | {first:.0} ms | {second:.0} ms | {both:.0} ms | {ratio:.2} | {busy} | {rounds} |"
            )?;
        }
        Ok(())
    }
}
