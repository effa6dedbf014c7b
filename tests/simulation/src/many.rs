//! Plays many schedules, each in a process of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
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

/// What came of the schedule of a seed, as its process tells it.
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

/// Plays schedules for so long, or so many of them, from a first seed on.
///
/// # Errors
/// A schedule has broken an invariant, or cannot be played.
pub fn many(first: u64, count: Option<u64>, during: Option<Duration>, program: &Path) -> Result<()> {
    let place = Place::new(program.to_owned())?;
    let begin = Instant::now();
    let (mut played, mut longest, mut said) = (0, (Duration::ZERO, first), Duration::ZERO);
    let mut broken = Vec::new();
    loop {
        let elapsed = begin.elapsed();
        let is_over = count.is_some_and(|count| played >= count) || during.is_some_and(|during| elapsed >= during);
        if is_over || elapsed >= said + Duration::from_secs(10) {
            said = elapsed;
            let rate = f64::from(u32::try_from(played).unwrap_or(u32::MAX)) / elapsed.as_secs_f64().max(0.001);
            let (rest, seed) = longest;
            println!(
                "{played} schedules, {rate:.0} a second, longest time to rest {rest:?} (seed {seed}), {} broken",
                broken.len()
            );
        }
        if is_over {
            break;
        }
        let seed = first + played;
        let told = place.play(seed)?;
        longest = longest.max((told.rest, seed));
        played += 1;
        if let Some(sentence) = told.broken {
            println!("seed {seed}: {sentence}\n  cargo xtask simulate --seed {seed}");
            broken.push(seed);
        }
    }
    ensure!(broken.is_empty(), "{} schedules break an invariant: {broken:?}", broken.len());
    Ok(())
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
