//! A schedule: what a seed makes of a node and its troubles.

use std::{fmt, time::Duration};

use stanchion_runtime::{
    ErrorKind, OnReturn,
    testing::{Fault, Method},
};

use crate::{pod::Pod, random::Random};

/// Names of the backends, which are also runtime classes.
pub const BACKENDS: [&str; 2] = ["first", "second"];
/// Names of the pods. The first half is in the first source, the rest in the second.
pub const PODS: [&str; 4] = ["a", "b", "c", "d"];
/// Number of sources.
pub const SOURCES: usize = 2;

/// A node and its troubles.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The seed that it was made from.
    pub seed: u64,
    /// Number of backends.
    pub backends: usize,
    /// Whether the default backend is `auto`; else it is the first.
    pub is_auto: bool,
    /// Time after which pods fail over, and what they do on the return of their backend.
    pub failover: Option<(Duration, OnReturn)>,
    /// Number of pods.
    pub pods: usize,
    /// What happens, and how long the node is then left alone.
    pub steps: Vec<(Step, Duration)>,
}

/// One thing that happens to the node.
#[derive(Clone, Debug)]
pub enum Step {
    /// A manifest is written or replaced.
    Write(Pod),
    /// A comment is added to a manifest.
    Touch(usize),
    /// A manifest becomes invalid.
    Typo(usize),
    /// A manifest is removed.
    Remove(usize),
    /// The directory of a source vanishes.
    LoseSource(usize),
    /// It comes back with the manifests that it had.
    FindSource(usize),
    /// A container ends: which of those that run, and how.
    Exit(u64, End),
    /// A sandbox is lost: which of those that are ready.
    LoseSandbox(u64),
    /// A runtime cannot be reached any more; its containers run on, end, or are wiped with all else.
    GoAway(usize, Fate),
    /// A runtime is back.
    ComeBack(usize),
    /// A call to a runtime fails, or does its work and then fails.
    Fail {
        /// The runtime.
        backend: usize,
        /// The method.
        method: Method,
        /// Which of its next calls.
        nth: u32,
        /// The error.
        kind: ErrorKind,
        /// Whether the call does its work.
        is_done: bool,
    },
    /// A call to a runtime hangs, before its work or after it.
    Hang {
        /// The runtime.
        backend: usize,
        /// The method.
        method: Method,
        /// Which of its next calls.
        nth: u32,
        /// Whether the call does its work.
        is_done: bool,
    },
    /// All calls to a runtime hang.
    HangAll(usize),
    /// All calls to a runtime are slow.
    Slow(usize, u64),
    /// All calls to a runtime work again.
    Heal(usize),
    /// A runtime's events are lost.
    Mute(usize),
    /// The registry loses the image of a pod.
    Unpublish(usize),
    /// The registry has all images again.
    Publish,
    /// A command of a pod's containers fails from now on, or succeeds: a probe or a hook.
    Answer {
        /// The pod.
        pod: usize,
        /// The command.
        command: &'static str,
        /// Whether it succeeds.
        is_good: bool,
    },
    /// A user asks for the restart of a pod.
    Restart(usize),
    /// The agent ends.
    End(HowAgentEnds),
    /// An agent is started, if none runs.
    Start,
    /// Somebody sets the clock.
    SetClock(i64),
    /// The disk is full.
    FillDisk,
    /// The disk has space again.
    FreeDisk,
}

/// How a container ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Code(i32),
    /// By the kernel's OOM killer.
    OutOfMemory,
    /// Without an exit code.
    Lost,
}

/// What happens to the containers of a runtime that goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They run on.
    RunOn,
    /// They end; their records stay.
    End,
    /// They are gone without a trace.
    Wiped,
}

/// How the agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HowAgentEnds {
    /// In order.
    Orderly,
    /// At the await that each of its tasks is in after so many turns.
    Killed(u64),
    /// In a call to a runtime, before or after its work.
    InCall {
        /// The runtime.
        backend: usize,
        /// The method.
        method: Method,
        /// Whether the call has done its work.
        is_done: bool,
    },
}

impl Schedule {
    /// Returns the schedule of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let backends = random.weighed(&[(1, 1), (2, 2)]);
        let is_auto = random.chance(30);
        let on_return = random.pick(&[OnReturn::Stay, OnReturn::Migrate]);
        let failover = random.chance(50).then(|| (Duration::from_secs(random.pick(&[10, 60])), on_return));
        let pods = 1 + random.index(PODS.len());
        let has_disk = random.chance(80);
        let mut schedule = Self { seed, backends, is_auto, failover, pods, steps: Vec::new() };
        let mut steps = Steps { random, backends, pods, last: vec![None; pods], version: 0, has_disk };
        for pod in 0..pods {
            let write = steps.write(pod);
            schedule.steps.push((write, Duration::ZERO));
        }
        for _ in 0..20 + steps.random.below(20) {
            let step = steps.next();
            let rest = steps.rest();
            schedule.steps.push((step, rest));
        }
        schedule
    }
}

/// Maker of steps.
struct Steps {
    random: Random,
    backends: usize,
    pods: usize,
    last: Vec<Option<Pod>>,
    version: u64,
    /// Whether the disk is never full.
    has_disk: bool,
}

/// Kinds of steps.
#[derive(Clone, Copy)]
enum Kind {
    Write,
    Touch,
    Typo,
    Remove,
    LoseSource,
    FindSource,
    Exit,
    LoseSandbox,
    GoAway,
    ComeBack,
    Fail,
    Hang,
    HangAll,
    Slow,
    Heal,
    Mute,
    Unpublish,
    Publish,
    Answer,
    Restart,
    End,
    Start,
    SetClock,
    FillDisk,
    FreeDisk,
}

/// How often a step is of each kind.
const WEIGHTS: [(u64, Kind); 25] = [
    (16, Kind::Write),
    (2, Kind::Touch),
    (3, Kind::Typo),
    (5, Kind::Remove),
    (2, Kind::LoseSource),
    (4, Kind::FindSource),
    (8, Kind::Exit),
    (3, Kind::LoseSandbox),
    (5, Kind::GoAway),
    (8, Kind::ComeBack),
    (16, Kind::Fail),
    (5, Kind::Hang),
    (2, Kind::HangAll),
    (3, Kind::Slow),
    (8, Kind::Heal),
    (2, Kind::Mute),
    (3, Kind::Unpublish),
    (4, Kind::Publish),
    (6, Kind::Answer),
    (2, Kind::Restart),
    (8, Kind::End),
    (10, Kind::Start),
    (3, Kind::SetClock),
    (2, Kind::FillDisk),
    (4, Kind::FreeDisk),
];

impl Steps {
    fn next(&mut self) -> Step {
        let kind = self.random.weighed(&WEIGHTS);
        let (pod, backend) = (self.random.index(self.pods), self.random.index(self.backends));
        let source = self.random.index(SOURCES);
        match kind {
            Kind::Write => self.write(pod),
            Kind::Touch => Step::Touch(pod),
            Kind::Typo => Step::Typo(pod),
            Kind::Remove => Step::Remove(pod),
            Kind::LoseSource => Step::LoseSource(source),
            Kind::FindSource => Step::FindSource(source),
            Kind::Exit => self.exit(),
            Kind::LoseSandbox => Step::LoseSandbox(self.random.draw()),
            Kind::GoAway => Step::GoAway(backend, self.random.pick(&[Fate::RunOn, Fate::End, Fate::Wiped])),
            Kind::ComeBack => Step::ComeBack(backend),
            Kind::Fail => self.fail(backend),
            Kind::Hang => self.hang(backend),
            Kind::HangAll => Step::HangAll(backend),
            Kind::Slow => Step::Slow(backend, self.random.pick(&[1, 5, 40])),
            Kind::Heal => Step::Heal(backend),
            Kind::Mute => Step::Mute(backend),
            Kind::Unpublish => Step::Unpublish(pod),
            Kind::Publish => Step::Publish,
            Kind::Answer => self.answer(pod),
            Kind::Restart => Step::Restart(pod),
            Kind::End => self.end(backend),
            Kind::Start => Step::Start,
            Kind::SetClock => Step::SetClock(self.random.pick(&[-8, -1, 1, 8])),
            Kind::FillDisk if self.has_disk => self.write(pod),
            Kind::FillDisk => Step::FillDisk,
            Kind::FreeDisk => Step::FreeDisk,
        }
    }

    fn write(&mut self, pod: usize) -> Step {
        self.version += 1;
        let last = self.last[pod].as_ref();
        let next = Pod::next(&mut self.random, PODS[pod], self.version, self.backends, last);
        self.last[pod] = Some(next.clone());
        Step::Write(next)
    }

    fn exit(&mut self) -> Step {
        let end = self.random.weighed(&[(3, End::Code(1)), (2, End::Code(0)), (1, End::OutOfMemory), (1, End::Lost)]);
        Step::Exit(self.random.draw(), end)
    }

    fn nth(&mut self) -> u32 {
        self.random.weighed(&[(4, 1), (2, 2), (1, 3)])
    }

    fn fail(&mut self, backend: usize) -> Step {
        let (method, nth, kind) = (self.random.pick(&Method::OF_PODS), self.nth(), self.random.pick(&Fault::KINDS));
        Step::Fail { backend, method, nth, kind, is_done: self.random.chance(50) }
    }

    fn hang(&mut self, backend: usize) -> Step {
        Step::Hang {
            backend,
            method: self.random.pick(&Method::OF_PODS),
            nth: self.nth(),
            is_done: self.random.chance(50),
        }
    }

    fn answer(&mut self, pod: usize) -> Step {
        let command = self.random.pick(&["liveness", "readiness", "preStop", "postStart"]);
        Step::Answer { pod, command, is_good: self.random.chance(60) }
    }

    fn end(&mut self, backend: usize) -> Step {
        let (orderly, killed) = (HowAgentEnds::Orderly, HowAgentEnds::Killed(self.random.below(200)));
        let in_call = HowAgentEnds::InCall {
            backend,
            method: self.random.pick(&Method::OF_PODS),
            is_done: self.random.chance(50),
        };
        Step::End(self.random.weighed(&[(2, orderly), (3, killed), (3, in_call)]))
    }

    /// Returns how long the node is left alone: often not at all, sometimes until all is at rest.
    fn rest(&mut self) -> Duration {
        let most = self.random.weighed(&[(4, 0), (3, 1_000), (4, 20_000), (3, 120_000), (1, 900_000)]);
        Duration::from_millis(self.random.below(most + 1))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, backends, is_auto, failover, pods, steps } = self;
        let default = if *is_auto { "auto" } else { "named" };
        write!(f, "seed {seed}: {backends} backends, default {default}, failover {failover:?}, {pods} pods, ")?;
        writeln!(f, "{} steps", steps.len())
    }
}
