//! `cargo xtask fuzz`: runs libFuzzer on the decoder of manifests.
//!
//! The stable compiler suffices: LLVM flags give the coverage, and only sanitizers would need nightly.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use stanchion_tests::tools;

use crate::{build, say};

/// Compiler flags with which libFuzzer sees the code that an input reaches.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// Directories of seed manifests, relative to the root.
const SEEDS: [&str; 5] = [
    "tests/manifests",
    "tests/golden/apiserver-1.36/valid",
    "tests/golden/apiserver-1.36/invalid",
    "tests/golden/apiserver-1.36/decode",
    "tests/golden/apiserver-1.36/gated",
];
/// Limits of one input: time, and memory.
const SECONDS: u32 = 5;
const MEGABYTES: u32 = 1024;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// For how long, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The longest input, bytes
    #[arg(long, default_value_t = 8192)]
    longest: u32,
}

/// Builds the fuzz target and runs it. libFuzzer saves an input that breaks it to `fuzz` in the target directory.
pub fn run(options: &Options) -> Result<()> {
    let work = tools::target_dir()?.join("fuzz");
    let corpus = work.join("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let program = build_target(&work)?;
    let dictionary = work.join("fields.dict");
    fs::write(&dictionary, dictionary_of(&tools::workspace_dir())?)
        .with_context(|| format!("cannot write {}", dictionary.display()))?;
    say(format!("fuzzing the decoder for {} s", options.seconds));
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-max_len={}", options.longest))
        .arg(format!("-timeout={SECONDS}"))
        .arg(format!("-rss_limit_mb={MEGABYTES}"))
        .arg(format!("-dict={}", dictionary.display()))
        .arg(format!("-artifact_prefix={}/", work.display()))
        .args(["-print_final_stats=1", "-verbosity=1", "-reload=0"])
        .arg(&corpus)
        .args(SEEDS.map(|seeds| tools::workspace_dir().join(seeds)));
    let status = command.status().context("cannot start the fuzz target")?;
    ensure!(status.success(), "an input breaks the decoder ({status}): see {}", work.display());
    Ok(())
}

fn build_target(work: &Path) -> Result<std::path::PathBuf> {
    let host = host()?;
    let manifest = tools::workspace_dir().join("fuzz/Cargo.toml");
    // With `--target`, build scripts and macros are not instrumented.
    let arguments = ["build", "--release", "--locked", "--target", &host, "--manifest-path"];
    say(format!("cargo {} {}", arguments.join(" "), manifest.display()));
    let mut command = build::cargo(&arguments)?;
    command.arg(&manifest).env("CARGO_TARGET_DIR", work).env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"));
    let status = command.status().context("cannot start cargo")?;
    ensure!(status.success(), "the fuzz target does not build ({status}); libFuzzer needs a C++ compiler");
    Ok(work.join(host).join("release/decode"))
}

/// Returns the compiler's host triple.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot start rustc")?;
    let text = String::from_utf8(output.stdout).context("the output of rustc is not UTF-8")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc prints no host triple")?.to_owned())
}

/// Returns a libFuzzer dictionary: the Pod's field names, and YAML syntax.
fn dictionary_of(root: &Path) -> Result<String> {
    let path = root.join("docs/pod-support.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let fields = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let names = fields.filter_map(|(path, _)| path.trim_end_matches("[]").rsplit('.').next());
    let mut words: Vec<_> = names.map(|name| format!("\"{name}: \"")).collect();
    words.extend(
        ["---\\x0a", "<<: ", "*a", "&a ", "|-\\x0a", ">+\\x0a", "!!str ", "\\xef\\xbb\\xbf", "kind: List\\x0a"]
            .map(|word| format!("\"{word}\"")),
    );
    words.sort();
    words.dedup();
    Ok(words.join("\n") + "\n")
}
