//! `cargo xtask test`: fetches missing programs, builds once, runs all tests and counts the results.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    thread::available_parallelism,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use stanchion_tests::slot;

use crate::{build, deps, lint, say, simulate};

/// Most tests at once: each with a node of its own runs a containerd, a registry and an agent.
const MOST_AT_ONCE: usize = 4;

/// Minutes of the simulation that are part of the tests.
const SIMULATION: u64 = 2;

/// Lines of a failed test's output that are repeated at the end, and their length.
const LINES_OF_A_FAILURE: usize = 30;
const COLUMNS_OF_A_FAILURE: usize = 300;

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only tests whose names contain this
    filter: Option<String>,
    /// Check formatting and lints too, as CI does
    #[arg(long)]
    lint: bool,
}

/// Builds and runs the tests.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    deps::ensure_all()?;
    for dir in slot::sweep()? {
        say(format!("removed what an earlier run left in {}", dir.display()));
    }
    if options.lint {
        lint::formatting()?;
    }
    // The same targets as `cargo test`, so that programs and libraries are built once, with the same features.
    build::run(&["build", "--workspace", "--all-targets"])?;
    let tally = tests(options.filter.as_deref())?;
    let simulated = if options.filter.is_none() { simulate::for_a_while(SIMULATION) } else { Ok(()) };
    let lints = if options.lint { lint::clippy() } else { Ok(()) };
    let left = slot::sweep()?;
    let took = started.elapsed().as_secs();
    for line in tally.digest() {
        println!("{line}");
    }
    println!("{}, in {} min {} s", tally.summary(), took / 60, took % 60);
    ensure!(left.is_empty(), "tests left nodes behind: {left:?} (removed now)");
    lints?;
    simulated?;
    ensure!(tally.failed == 0 && tally.complete, "tests failed");
    ensure!(tally.passed > 0, "no test has this in its name: {}", options.filter.as_deref().unwrap_or_default());
    Ok(())
}

/// Sums of the lines `test result: …`, and output of failed tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Whether cargo succeeded, or failed only because tests failed.
    complete: bool,
    /// Each failed test's header line and output, without backtraces.
    failures: Vec<Vec<String>>,
    /// Whether the next line belongs to the last failure.
    in_failure: bool,
}

impl Tally {
    fn add(&mut self, line: &str) {
        let header = line.starts_with("---- ") && line.ends_with(" stdout ----");
        if header {
            self.failures.push(Vec::new());
        }
        let ends = ["failures:", "stack backtrace:", "Stack backtrace:", "test result: "];
        self.in_failure = header || (self.in_failure && !ends.iter().any(|end| line.starts_with(end)));
        if let Some(failure) = self.failures.last_mut().filter(|_| self.in_failure && !line.trim().is_empty()) {
            failure.push(line.to_owned());
        }
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

    /// Returns each failed test's header and last lines, so that the end of a long output shows what is wrong.
    fn digest(&self) -> impl Iterator<Item = String> {
        self.failures.iter().flat_map(|failure| {
            let (name, said) = failure.split_at(1.min(failure.len()));
            let last = &said[said.len().saturating_sub(LINES_OF_A_FAILURE)..];
            name.iter().chain(last).map(|line| line.chars().take(COLUMNS_OF_A_FAILURE).collect())
        })
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
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1, ..Tally::default() });
    }

    #[test]
    fn the_end_tells_what_failed_tests_said_last() {
        let mut tally = Tally::default();
        let first =
            ["---- a::first stdout ----", "", "panicked at x.rs:1:", "stack backtrace:", "   0: rust_begin_unwind", ""];
        let second = (0..100).map(|n| format!("line {n}"));
        first.iter().for_each(|line| tally.add(line));
        tally.add("---- second stdout ----");
        second.for_each(|line| tally.add(&line));
        ["", "failures:", "    a::first"].iter().for_each(|line| tally.add(line));
        let digest: Vec<_> = tally.digest().collect();
        assert_eq!(digest[..3], ["---- a::first stdout ----", "panicked at x.rs:1:", "---- second stdout ----"]);
        assert_eq!((digest[3].as_str(), digest.last().map(String::as_str)), ("line 70", Some("line 99")));
    }
}
