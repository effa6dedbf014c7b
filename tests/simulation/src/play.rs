//! Plays the schedule of a seed.

use std::{collections::BTreeSet, fmt, io, path::Path, time::Duration};

use stanchion_runtime::testing::{Entry, Fact};
use tokio::time::{Instant, sleep};

use crate::{
    check,
    ledger::Ledger,
    node::{Node, now},
    perform::Stage,
    schedule::{Schedule, Step},
    trace::Trace,
    world::World,
};

/// Time in which nothing of the pods is left once their manifests are gone.
const UNTIL_GONE: Duration = Duration::from_secs(600);
/// Time between two checks while the node comes to rest.
const TICK: Duration = Duration::from_secs(1);
/// Outage of all runtimes that pods must survive: less than the time after which they fail over, if they do.
const OUTAGES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(20));
/// Time for which the node must be at rest: its agent may not have seen yet that it has something to do.
const STABLE: Duration = Duration::from_secs(60);

/// What came of a schedule.
#[derive(Debug)]
pub struct Outcome {
    /// Hash of the trace.
    pub hash: u64,
    /// Time from the end of the troubles until all was as wanted.
    pub rest: Duration,
    /// What was broken first, in one sentence.
    pub broken: Option<String>,
    /// The lines of the trace, if they are kept.
    pub lines: Vec<String>,
}

/// Plays the schedule of a seed in an empty directory, which becomes the working directory. This takes the process: one plays
/// one schedule, because hash maps and tokio number what they make in it.
///
/// # Errors
/// The test's own files cannot be written.
pub fn play(seed: u64, directory: &Path, is_kept: bool) -> io::Result<Outcome> {
    std::env::set_current_dir(directory)?;
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    tokio.block_on(async {
        let schedule = Schedule::of(seed);
        let (node, world) = (Node::new(&schedule)?, World::new(&schedule));
        let stage = Stage {
            node,
            world,
            ledger: Ledger::default(),
            panics: Vec::new(),
            muted: BTreeSet::new(),
            processes: BTreeSet::new(),
        };
        let mut game = Game { stage, trace: Trace::new(is_kept), origin: now() };
        game.trace.note(&schedule);
        let rest = game.run(&schedule).await?;
        let broken = game.broken();
        if broken.is_some() {
            let Stage { node, world, .. } = &game.stage;
            check::words(node, world).into_iter().for_each(|line| game.trace.note(line));
        }
        Ok(Outcome { hash: game.trace.hash(), rest, broken, lines: game.trace.lines().to_vec() })
    })
}

/// A schedule that is being played.
struct Game {
    stage: Stage,
    trace: Trace,
    origin: Instant,
}

impl Game {
    /// Performs the steps up to the first violation. Returns the time that the node took to come to rest.
    async fn run(&mut self, schedule: &Schedule) -> io::Result<Duration> {
        let mut version = 0;
        self.stage.start()?;
        for (step, rest) in &schedule.steps {
            if let Step::Write(pod) = step {
                version = version.max(pod.version);
            }
            self.note(format_args!("{step:?}, then {rest:?}"));
            self.stage.perform(step).await?;
            self.look()?;
            sleep(*rest).await;
            self.look()?;
            self.check();
            if self.broken().is_some() {
                return Ok(Duration::ZERO);
            }
        }
        self.note("all troubles end");
        self.stage.end_troubles(&mut version)?;
        let took = self.until("rest", (check::BOUND, STABLE), Self::unrest).await?;
        if self.broken().is_none() {
            self.stand_still().await?;
        }
        if self.broken().is_none() {
            self.leave().await?;
        }
        Ok(took)
    }

    /// Checks that pods at rest run on while the agent is killed and started, and their runtimes go and come back (I3).
    async fn stand_still(&mut self) -> io::Result<()> {
        self.stage.world.pods().for_each(|pod| self.stage.world.at_rest(pod));
        self.note("the agent is killed and started");
        let panic = self.stage.node.end(true).await;
        self.stage.panics.extend(panic);
        self.stage.node.start()?;
        sleep(Duration::from_secs(20)).await;
        self.look()?;
        self.note("the runtimes go and come back");
        self.stage.node.fakes.iter().for_each(|fake| fake.set_available(false));
        sleep(if self.stage.world.can_move { OUTAGES.0 } else { OUTAGES.1 }).await;
        self.stage.node.fakes.iter().for_each(|fake| fake.set_available(true));
        sleep(Duration::from_secs(40)).await;
        self.look()?;
        self.check();
        Ok(())
    }

    /// Removes all manifests, and waits until nothing of the pods is left (I6).
    async fn leave(&mut self) -> io::Result<()> {
        self.note("all manifests are removed");
        for pod in self.stage.world.pods() {
            self.stage.remove(pod)?;
        }
        if self.stage.world.was_full {
            self.stage.mean_it()?;
        }
        self.until("the end of all pods", (UNTIL_GONE, 2 * TICK), |game| {
            game.unrest().or_else(|| {
                let files = game.stage.node.files();
                (!files.is_empty()).then(|| format!("I6: files are left: {files:?}"))
            })
        })
        .await?;
        Ok(())
    }

    /// Waits until there has been no reason to wait for a while. It is a violation if that takes too long. Returns how long it
    /// took, without that while.
    async fn until(
        &mut self,
        what: &str,
        (limit, stable): (Duration, Duration),
        why: impl Fn(&Self) -> Option<String>,
    ) -> io::Result<Duration> {
        let begin = now();
        let mut took = Duration::ZERO;
        while self.broken().is_none() && now().duration_since(begin) < took + stable {
            sleep(TICK).await;
            self.look()?;
            if let Some(why) = why(self) {
                took = now().duration_since(begin);
                if took > limit {
                    self.stage.ledger.broken.push(format!("{why}, {took:?} after all troubles ended"));
                }
            }
        }
        self.note(format_args!("{what} after {took:?}"));
        Ok(took)
    }

    /// Returns why the node is not at rest.
    fn unrest(&self) -> Option<String> {
        let Stage { node, world, ledger, .. } = &self.stage;
        world.pods().find_map(|pod| check::unrest(pod, node, world, ledger))
    }

    fn check(&mut self) {
        let Stage { node, world, ledger, .. } = &mut self.stage;
        check::check_rest(node, world, ledger);
        check::check_shown(node, world, ledger);
        let board = check::board(node, world);
        self.note(board);
    }

    /// Takes in what the runtimes did.
    fn look(&mut self) -> io::Result<()> {
        for entry in self.stage.node.fakes[0].take_journal() {
            let Entry { at, runtime, fact } = &entry;
            let since = at.duration_since(self.origin).as_secs_f64();
            self.trace.note(format_args!("{since:.3} {runtime}: {}", Short(fact)));
            let before = self.stage.ledger.broken.len();
            self.stage.ledger.enter(&entry, &self.stage.world);
            for broken in &self.stage.ledger.broken[before..] {
                self.trace.note(format_args!("*** {broken}"));
            }
        }
        if self.stage.node.has_ended() {
            self.stage.panics.push("the agent ended by itself".to_owned());
        }
        self.stage.lapse();
        self.stage.show_processes()
    }

    fn note(&mut self, line: impl fmt::Display) {
        let since = now().duration_since(self.origin).as_secs_f64();
        self.trace.note(format_args!("{since:.3} {line}"));
    }

    fn broken(&self) -> Option<String> {
        self.stage.panics.iter().chain(&self.stage.ledger.broken).next().cloned()
    }
}

/// A fact in few words, and the same in each process.
struct Short<'a>(&'a Fact);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use stanchion_runtime::testing::Call;
        match self.0 {
            Fact::Called(Call::CreateContainer(it)) => {
                write!(f, "create {} attempt {} of {} in {}", it.name, it.attempt, it.image, it.sandbox)
            }
            Fact::Called(Call::CreateSandbox(it)) => write!(f, "create sandbox of {} attempt {}", it.name, it.attempt),
            Fact::Called(Call::Exec(it)) => write!(f, "exec {:?} in {}", it.command, it.container),
            Fact::Called(Call::PullImage(it)) => write!(f, "pull {}", it.reference),
            Fact::Called(call) => write!(f, "{call:?}"),
            Fact::SandboxMade(it) => write!(f, "  {} made", it.id),
            Fact::SandboxLost(id) => write!(f, "  {id} lost"),
            Fact::SandboxGone(id) => write!(f, "  {id} gone"),
            Fact::Made(it) => write!(f, "  {} made", it.id),
            Fact::Started(id) => write!(f, "  {id} started"),
            Fact::Ended(id, code) => write!(f, "  {id} ended with {code:?}"),
            Fact::Gone(id) => write!(f, "  {id} gone"),
        }
    }
}
