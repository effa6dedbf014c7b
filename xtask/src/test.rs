//! `cargo xtask test`: fetches, builds once, runs everything, and counts.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use stanchion_tests::slot;

use crate::{build, deps, lint, say};

/// A test that has a node of its own runs a containerd, a registry and an agent.
const MOST_AT_ONCE: usize = 4;

/// What to run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only tests whose names contain this
    filter: Option<String>,
    /// Check formatting and lints too, as CI does
    #[arg(long)]
    lint: bool,
}

/// Runs it.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    deps::ensure_all()?;
    for dir in slot::sweep()? {
        say(format!("removed what an earlier run left in {}", dir.display()));
    }
    if options.lint {
        lint::formatting()?;
    }
    // The same selection of targets as `cargo test`, so that programs and libraries are built once, with the same features.
    build::run(&["build", "--workspace", "--all-targets"])?;
    let tally = tests(options.filter.as_deref())?;
    let lints = if options.lint { lint::clippy() } else { Ok(()) };
    let left = slot::sweep()?;
    let took = started.elapsed().as_secs();
    println!("{}, in {} min {} s", tally.summary(), took / 60, took % 60);
    ensure!(left.is_empty(), "tests left nodes behind: {left:?} (removed now)");
    lints?;
    ensure!(tally.failed == 0 && tally.complete, "tests failed");
    ensure!(tally.passed > 0, "no test has this in its name: {}", options.filter.as_deref().unwrap_or_default());
    Ok(())
}

/// What the lines `test result: …` add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Whether cargo itself ended well, or failed for failed tests only.
    complete: bool,
}

impl Tally {
    fn add(&mut self, line: &str) {
        let Some(counts) = line.trim().strip_prefix("test result: ") else { return };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some((count, what)) = words.next().and_then(|word| word.parse::<u64>().ok()).zip(words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    fn summary(&self) -> String {
        format!("{} passed, {} failed, {} ignored", self.passed, self.failed, self.ignored)
    }
}

fn tests(filter: Option<&str>) -> Result<Tally> {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    say(format!("cargo {}", arguments.join(" ")));
    let threads = available_parallelism().map_or(2, usize::from).min(MOST_AT_ONCE);
    let mut child = build::cargo(&arguments)?
        .env("RUST_TEST_THREADS", threads.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut tally = Tally::default();
    let output = child.stdout.take().context("cargo's output was piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read cargo's output")?;
        let text = String::from_utf8_lossy(&line);
        tally.add(&text);
        writeln!(std::io::stdout(), "{text}").context("cannot print")?;
    }
    let status = child.wait().context("cannot wait for cargo")?;
    tally.complete = status.success() || tally.failed > 0;
    if !tally.complete {
        bail!("cargo test ended with {status} although no test failed: {}", tally.summary());
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.70s");
        tally.add("test result: FAILED. 10 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s");
        tally.add("test some::name ... ok");
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1, complete: false });
    }
}
