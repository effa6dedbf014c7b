//! Plays many schedules, each in a process of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use stanchion_plan::mutant::Mutant;

use crate::play::{Outcome, play};

/// Directory in memory for the nodes' files, if there is one.
const MEMORY: &str = "/dev/shm";

/// Exit code of a process that could not play its schedule, for want of something that other programs have taken.
pub const UNPLAYED: u8 = 3;
/// Number of tries of such a schedule, and the pause between them.
const TRIES: u32 = 120;
const PAUSE: Duration = Duration::from_secs(1);

/// Time between two lines that say how far it has come.
const PROGRESS: Duration = Duration::from_secs(10);

/// Outcome of the schedule of a seed, as its process tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Hash of the trace.
    pub hash: u64,
    /// Time from the end of the troubles until all was as wanted.
    pub rest: Duration,
    /// What was broken first, in one sentence.
    pub broken: Option<String>,
}

/// A place where schedules are played, one after the other.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    program: PathBuf,
    mutant: Option<Mutant>,
}

impl Place {
    /// Makes a place for schedules that are played by this program.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn new(program: PathBuf) -> Result<Self> {
        Ok(Self { directory: scratch()?, program, mutant: None })
    }

    /// Returns the place for schedules of an agent with a broken line.
    #[must_use]
    pub fn with_mutant(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Plays the schedule of a seed in a process of its own.
    ///
    /// # Errors
    /// The process cannot be started, or cannot play the schedule.
    pub fn play(&self, seed: u64) -> Result<Told> {
        let mut tries = 1;
        loop {
            let output = self.run(seed)?;
            let said = String::from_utf8_lossy(&output.stdout);
            if let Some(told) = Told::read(&said) {
                return Ok(told);
            }
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = errors.lines().last().unwrap_or_default();
            if output.status.code() != Some(i32::from(UNPLAYED)) {
                let broken = Some(format!("the process ended with {}: {last}", output.status));
                return Ok(Told { hash: 0, rest: Duration::ZERO, broken });
            }
            ensure!(tries < TRIES, "seed {seed} cannot be played: {last}");
            tries += 1;
            pause();
        }
    }

    fn run(&self, seed: u64) -> Result<Output> {
        let directory = self.directory.path().join("node");
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let output = Command::new(&self.program)
            .args(["--one", &seed.to_string(), "--in"])
            .arg(&directory)
            .args(self.mutant.map(|mutant| format!("--mutant={mutant:?}")))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        Ok(output)
    }
}

impl Told {
    fn of(outcome: Outcome) -> Self {
        let Outcome { hash, rest, broken, .. } = outcome;
        Self { hash, rest, broken }
    }

    /// Writes it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{:016x} {} {}", self.hash, self.rest.as_millis(), self.broken.as_deref().unwrap_or("-"))
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.trim_end().splitn(3, ' ');
        let hash = u64::from_str_radix(words.next()?, 16).ok()?;
        let rest = Duration::from_millis(words.next()?.parse().ok()?);
        let broken = words.next().filter(|broken| *broken != "-").map(str::to_owned);
        Some(Self { hash, rest, broken })
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing tells when other programs give back what they have taken")]
fn pause() {
    thread::sleep(PAUSE);
}

/// Makes a directory for nodes, in memory if possible.
///
/// # Errors
/// No directory can be made.
pub fn scratch() -> Result<TempDir> {
    let within = |directory: &Path| tempfile::Builder::new().prefix("stanchion-simulation-").tempdir_in(directory);
    let made = within(Path::new(MEMORY)).or_else(|_| within(&std::env::temp_dir()));
    made.context("cannot make a directory for the nodes")
}

/// Plays the schedule of a seed in this process, in an empty directory.
///
/// # Errors
/// The test's own files cannot be written.
pub fn one(seed: u64, directory: &Path) -> io::Result<Told> {
    play(seed, directory, false).map(Told::of)
}

/// Which schedules are played.
#[derive(Clone, Copy, Debug)]
pub struct Which {
    /// The first seed.
    pub first: u64,
    /// Number of seeds; `None`: as many as there is time for.
    pub count: Option<u64>,
    /// Time in which schedules begin; `None`: as long as it takes.
    pub during: Option<Duration>,
    /// Number of schedules that are played at once.
    pub jobs: usize,
}

/// Plays schedules, and prints how far it has come.
///
/// # Errors
/// A schedule has broken an invariant, or cannot be played.
pub fn many(which: Which, program: &Path) -> Result<()> {
    let Which { first, count, during, jobs } = which;
    let (next, begin) = (AtomicU64::new(0), Instant::now());
    let (send, told) = mpsc::channel();
    let work = |send: Sender<Result<(u64, Told)>>| {
        let played = Place::new(program.to_owned()).and_then(|place| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let is_late = during.is_some_and(|during| begin.elapsed() >= during);
                if is_late || count.is_some_and(|count| index >= count) {
                    return Ok(());
                }
                let told = place.play(first + index)?;
                if send.send(Ok((first + index, told))).is_err() {
                    return Ok(());
                }
            }
        });
        // Nobody listens any more once another job has failed.
        played.map_or_else(|error| send.send(Err(error)).unwrap_or_default(), drop);
    };
    let tally = thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let send = send.clone();
            scope.spawn(move || work(send));
        }
        drop(send);
        let mut tally =
            Tally { begin, said: Duration::ZERO, played: 0, longest: (Duration::ZERO, first), broken: Vec::new() };
        told.into_iter().try_for_each(|told| told.map(|(seed, told)| tally.add(seed, told)))?;
        Ok::<_, anyhow::Error>(tally)
    })?;
    tally.say();
    ensure!(tally.broken.is_empty(), "{} schedules break an invariant: {:?}", tally.broken.len(), tally.broken);
    Ok(())
}

/// What came of all schedules so far.
struct Tally {
    begin: Instant,
    /// When it was printed last.
    said: Duration,
    played: u32,
    /// The longest time to rest, and its seed.
    longest: (Duration, u64),
    /// Seeds of schedules that break an invariant.
    broken: Vec<u64>,
}

impl Tally {
    fn add(&mut self, seed: u64, told: Told) {
        self.played += 1;
        self.longest = self.longest.max((told.rest, seed));
        if let Some(sentence) = told.broken {
            println!("seed {seed}: {sentence}\n  cargo xtask simulate --seed {seed}");
            self.broken.push(seed);
        }
        let elapsed = self.begin.elapsed();
        if elapsed >= self.said + PROGRESS {
            self.said = elapsed;
            self.say();
        }
    }

    fn say(&self) {
        let Self { begin, played, longest: (rest, seed), broken, .. } = self;
        let rate = f64::from(*played) / begin.elapsed().as_secs_f64().max(0.001);
        let broken = broken.len();
        println!(
            "{played} schedules, {rate:.0} a second, longest time to rest {rest:?} (seed {seed}), {broken} broken"
        );
    }
}

/// Plays schedules from the first seed on until each mutant is found. Prints how many it took.
///
/// # Errors
/// A mutant is not found within so many schedules, or a schedule cannot be played.
pub fn mutants(most: u64, program: &Path) -> Result<()> {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        match found(mutant, most, program)? {
            Some((seed, sentence)) => println!("{mutant:?} is found by schedule {seed}: {sentence}"),
            None => {
                println!("{mutant:?} is not found by {most} schedules");
                missed.push(mutant);
            }
        }
    }
    ensure!(missed.is_empty(), "broken lines that {most} schedules do not find: {missed:?}");
    Ok(())
}

/// Returns the first seed whose schedule finds a mutant, and what that has broken.
///
/// # Errors
/// A schedule cannot be played.
pub fn found(mutant: Mutant, most: u64, program: &Path) -> Result<Option<(u64, String)>> {
    let place = Place::new(program.to_owned())?.with_mutant(mutant);
    for seed in 1..=most {
        if let Some(sentence) = place.play(seed)?.broken {
            return Ok(Some((seed, sentence)));
        }
    }
    Ok(None)
}
