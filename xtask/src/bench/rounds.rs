//! Benchmark of one runtime: starts, kills, updates and deletes pods, and times each.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use stanchion_tests::{
    Backend, Node,
    events::{Event, Events},
    pods, proc, process,
    wait::pause,
};

use super::{
    Idle, Options,
    plain::{Plain, millis},
    table::{Figure, Report},
};
use crate::{interrupt::Interrupt, say};

/// Pause in which agent, containerd and kernel finish the work after the last change.
pub const SETTLE: Duration = Duration::from_millis(300);

/// Names begin so of the pods that come first, and go when all are exchanged.
const FIRST: &str = "first";
/// Names begin so of the pods that stay.
const POD: &str = "pod";

/// Node under measurement.
#[derive(Debug)]
pub struct Bench<'a> {
    node: &'a Node,
    events: Events,
    plain: Plain<'a>,
    interrupt: &'a Interrupt,
}

impl<'a> Bench<'a> {
    /// Pulls the images and subscribes to events.
    pub fn new(node: &'a Node, interrupt: &'a Interrupt) -> Result<Self> {
        // The first pod pulls its image and makes the bridge, which must not be measured.
        node.write("warm.yaml", pods::idle("warm", "1"))?;
        node.await_running("warm")?;
        node.remove("warm.yaml")?;
        node.await_nothing_left()?;
        let plain = Plain::new(node, node.runtime())?;
        let events = Events::subscribe(&node.containerd)?;
        Ok(Self { node, events, plain, interrupt })
    }

    /// Measures all figures with `n` pods on the node.
    pub fn measure(&self, n: usize, options: &Options, report: &mut Report) -> Result<()> {
        let alone = self.all_up(n, report)?;
        let agent = self.node.agent.id().context("the agent runs")?;
        say(format!("idle for {} s", options.idle));
        let idle = Idle::watch(agent, options.idle)?;
        report.usage(n, "agent's CPU while idle", format!("{:.2} % of a core", idle.cpu));
        report.usage(n, "agent's memory (PSS) while idle", idle.memory());
        let (loggers, memory) = self.loggers()?;
        if loggers > 0 {
            report.usage(n, "loggers' memory (PSS)", format!("{} in {loggers} processes", mib(memory)));
        }
        self.exchange(n, alone, report)?;
        // The rounds' own pod takes the place of the nth.
        self.node.remove(&file(POD, n - 1))?;
        self.node.await_gone(&name(POD, n - 1))?;
        for round in 0..options.rounds {
            ensure!(!self.interrupt.happened(), "interrupted");
            self.round(n, round, report)?;
        }
        self.take_down(n)
    }

    /// Writes all pods at once; returns how long it took until the last one ran, in milliseconds.
    fn all_up(&self, n: usize, report: &mut Report) -> Result<f64> {
        say(format!("{n} at once"));
        self.events.forget();
        let plain = Plain::many(&[&self.plain], n, &self.events)?;
        let drafts = self.drafts(n, FIRST)?;
        let (took, cpu) = self.until_started(n, FIRST, || {
            drafts.iter().try_for_each(|(draft, manifest)| Ok(fs::rename(draft, manifest)?))
        })?;
        report.time(n, Figure::AllUp, took, plain);
        report.usage(n, "agent's CPU per pod started", format!("{cpu:.1} ms"));
        Ok(took)
    }

    /// Removes all pods and writes as many others at once.
    fn exchange(&self, n: usize, alone: f64, report: &mut Report) -> Result<()> {
        say(format!("{n} removed and {n} others written at once"));
        let drafts = self.drafts(n, POD)?;
        self.settle();
        let (took, cpu) = self.until_started(n, POD, || {
            (0..n).zip(&drafts).try_for_each(|(i, (draft, manifest))| {
                self.node.remove(&file(FIRST, i))?;
                Ok(fs::rename(draft, manifest)?)
            })
        })?;
        for i in 0..n {
            self.node.await_gone(&name(FIRST, i))?;
        }
        report.time(n, Figure::Exchange, took, alone);
        report.usage(n, "agent's CPU per pod exchanged", format!("{cpu:.1} ms"));
        Ok(())
    }

    /// Writes manifests beside the directory of manifests; returns each one's path, and the path that it is meant for.
    fn drafts(&self, n: usize, kind: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let drafts = self.node.path("drafts");
        fs::create_dir_all(&drafts)?;
        let write = |i| {
            let draft = drafts.join(file(kind, i));
            fs::write(&draft, pods::idle(&name(kind, i), "1"))?;
            Ok((draft, self.node.manifest(&file(kind, i))))
        };
        (0..n).map(write).collect()
    }

    /// Makes a change and waits until `n` pods have started. Returns the time until the last start, and the agent's CPU
    /// time per pod until all are shown as running, in milliseconds.
    fn until_started(&self, n: usize, kind: &str, change: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
        let agent = self.node.agent.id().context("the agent runs")?;
        let before = proc::cpu(agent)?;
        self.events.forget();
        let written = Timestamp::now();
        change()?;
        let containers = match self.node.runtime() {
            Backend::Containerd | Backend::K3s => n,
            // Sandboxes are containers too.
            Backend::Docker => 2 * n,
        };
        let (mut up, mut last) = (BTreeSet::new(), written);
        while up.len() < containers {
            let event = self.events.next(self.node.task_namespace(), "/tasks/start")?;
            last = last.max(event.at);
            up.insert(event.container);
        }
        for i in 0..n {
            self.node.await_running(&name(kind, i))?;
        }
        let used = proc::cpu(agent)?.checked_sub(before).context("CPU time ran backwards")?;
        Ok((millis(written, last), used.as_secs_f64() * 1000.0 / n as f64))
    }

    fn round(&self, n: usize, round: usize, report: &mut Report) -> Result<()> {
        let probe = format!("probe-{round}");
        let manifest = format!("{probe}.yaml");
        self.settle();
        let plain = self.plain.once(&probe, &self.events)?;

        self.settle();
        let at = Timestamp::now();
        self.node.write(&manifest, pods::idle(&probe, "1"))?;
        let added = self.started(&probe)?;
        report.time(n, Figure::Add, millis(at, added.at), plain.pod);
        self.node.await_running(&probe)?;

        self.settle();
        let at = Timestamp::now();
        process::kill(added.pid)?;
        let again = self.started(&probe)?;
        report.time(n, Figure::Crash, millis(at, again.at), plain.container);
        self.node.await_running(&probe)?;

        self.settle();
        let at = Timestamp::now();
        self.node.write(&manifest, pods::idle(&probe, "2"))?;
        let updated = self.started(&probe)?;
        report.time(n, Figure::Update, millis(at, updated.at), plain.pod);
        self.node.await_running(&probe)?;

        self.settle();
        let at = Timestamp::now();
        self.node.remove(&manifest)?;
        let gone = self.events.next(self.node.task_namespace(), "/tasks/exit")?;
        ensure!(gone.container == updated.container, "another container ended: {gone:?}");
        report.time(n, Figure::Delete, millis(at, gone.at), plain.stop);
        self.node.await_gone(&probe)
    }

    /// Waits for the start of the pod's container. Nothing else starts meanwhile, except the pod's sandbox on Docker.
    fn started(&self, probe: &str) -> Result<Event> {
        let event = self.events.next(self.node.task_namespace(), "/tasks/start")?;
        let record = self.node.view().record(&event.container)?.with_context(|| format!("{event:?} has no record"))?;
        if record.container().is_empty() {
            return self.started(probe);
        }
        ensure!(record.pod() == pods::on_node(probe), "a container of {} started instead of {probe}'s", record.pod());
        Ok(event)
    }

    /// Waits for [`SETTLE`] and drops the events so far.
    fn settle(&self) {
        pause(SETTLE);
        self.events.forget();
    }

    fn loggers(&self) -> Result<(usize, u64)> {
        // Each logger has the slot's directory in its arguments.
        let seen = stanchion_tests::remains::processes(self.node.names())?;
        let loggers: Vec<_> = seen.iter().filter(|seen| seen.command.contains("stanchion-logger")).collect();
        let memory = loggers.iter().map(|seen| proc::pss(seen.pid)).sum::<Result<u64>>()?;
        Ok((loggers.len(), memory))
    }

    fn take_down(&self, n: usize) -> Result<()> {
        for i in 0..n {
            self.node.remove(&file(POD, i))?;
        }
        for i in 0..n {
            self.node.await_gone(&name(POD, i))?;
        }
        Ok(())
    }
}

/// Waits until the agent shows a pod as running and ready, on whichever backend.
pub fn await_shown(node: &Node, name: &str) -> Result<()> {
    node.until(&format!("pod {name} to run"), || {
        let pod = node.pod(name)?;
        ensure!(pod.phase() == "Running" && pod.ready(), "{}", pod.summary());
        Ok(())
    })
}

fn name(kind: &str, i: usize) -> String {
    format!("{kind}-{i}")
}

fn file(kind: &str, i: usize) -> String {
    format!("{kind}-{i}.yaml")
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
