//! Compares the answers to manifests with recordings of a real API server.

mod golden {
    pub mod case;
    pub mod compare;
}

use std::collections::BTreeMap;

use golden::{case, compare};
use stanchion_pod::kubernetes::Gates;

/// Compares a folder; returns the number of cases, and the cases that disagree with the difference.
fn disagreements(folder: &str, gates: Gates) -> (usize, BTreeMap<String, String>) {
    let cases = case::all(folder);
    let rules = case::rules();
    let mut wrong = BTreeMap::new();
    for case in &cases {
        let expected = rules.iter().find(|rule| rule.applies(case)).map_or(case.strict(), |rule| rule.follow(case));
        if let Err(said) = compare::answers(&case.manifest, expected, &gates) {
            wrong.insert(case.name.clone(), said);
        }
    }
    (cases.len(), wrong)
}

fn replay(folder: &str, gates: Gates) {
    let (all, mut wrong) = disagreements(folder, gates);
    println!("{folder}: {} of {all} agree", all - wrong.len());
    for difference in case::differences() {
        if let Some(name) = difference.case.strip_prefix(&format!("{folder}/")) {
            assert!(wrong.remove(name).is_some(), "{folder}/{name} agrees now: take it out of differences.yaml");
        }
    }
    let said: Vec<_> = wrong.iter().map(|(name, said)| format!("{folder}/{name}: {said}")).collect();
    assert!(wrong.is_empty(), "{} cases differ\n{}", wrong.len(), said.join("\n"));
}

// R-VAL-105.
#[test]
fn what_is_valid_is_accepted_with_the_same_defaults() {
    replay("valid", Gates::default());
}

// R-VAL-105.
#[test]
fn what_is_invalid_is_refused_in_the_same_words() {
    replay("invalid", Gates::default());
}

#[test]
fn yaml_and_json_are_read_alike() {
    replay("decode", Gates::default());
}

#[test]
fn open_gates_let_their_fields_through() {
    replay("gated", Gates::open());
}
