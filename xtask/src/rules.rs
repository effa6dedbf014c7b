//! `cargo xtask rules`: prints each rule of `docs/rules.md` with the tests that prove it, or why there are none.

use anyhow::{Result, ensure};
use stanchion_tests::{
    rules::{Proof, Rule, Verdict},
    tools,
};

/// Arguments of `cargo xtask rules`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only these rules, or all whose ids begin so: R-VAL
    ids: Vec<String>,
    /// Only rules without test and verdict
    #[arg(long)]
    missing: bool,
}

/// Prints the rules and how many of them have tests.
pub fn run(options: &Options) -> Result<()> {
    let proof = Proof::collect(&tools::workspace_dir())?;
    let asked = |rule: &&Rule| options.ids.is_empty() || options.ids.iter().any(|id| rule.id.starts_with(id.as_str()));
    for rule in proof.rules.iter().filter(asked) {
        if !options.missing || is_missing(&proof, rule) {
            print(&proof, rule);
        }
    }
    print_counts(&proof);
    ensure!(proof.problems.is_empty(), "{}", proof.problems.join("\n"));
    Ok(())
}

fn print(proof: &Proof, rule: &Rule) {
    let verdict = match &rule.verdict {
        Some(Verdict::NotTaken(reason)) => format!("not taken: {reason}"),
        Some(Verdict::Later(reason)) if reason.is_empty() => "later".to_owned(),
        Some(Verdict::Later(reason)) => format!("later: {reason}"),
        Some(Verdict::As(other)) => format!("as {other}"),
        None if proof.of(rule).is_empty() => "NO TEST".to_owned(),
        None => "tested".to_owned(),
    };
    println!("{:<10} P{}  {}  [{verdict}]", rule.id, rule.priority, rule.what);
    for test in proof.of(rule) {
        println!("{:<15}{test}", "");
    }
}

fn is_missing(proof: &Proof, rule: &Rule) -> bool {
    proof.of(rule).is_empty() && !matches!(rule.verdict, Some(Verdict::NotTaken(_) | Verdict::Later(_)))
}

fn print_counts(proof: &Proof) {
    println!("\n{:<4}{:>8}{:>8}{:>11}{:>7}{:>9}", "", "rules", "tested", "not taken", "later", "no test");
    for priority in 0..=2 {
        let rules: Vec<_> = proof.rules.iter().filter(|rule| rule.priority == priority).collect();
        let count = |wanted: fn(&Proof, &Rule) -> bool| rules.iter().filter(|rule| wanted(proof, rule)).count();
        println!(
            "P{priority:<3}{:>8}{:>8}{:>11}{:>7}{:>9}",
            rules.len(),
            count(|proof, rule| !proof.of(rule).is_empty()),
            count(|proof, rule| proof.of(rule).is_empty() && matches!(rule.verdict, Some(Verdict::NotTaken(_)))),
            count(|proof, rule| proof.of(rule).is_empty() && matches!(rule.verdict, Some(Verdict::Later(_)))),
            count(is_missing),
        );
    }
}
