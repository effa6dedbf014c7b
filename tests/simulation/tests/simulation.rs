//! Tests of the simulation: a seed goes the same way each time, and each line that can be broken is found.

use std::path::Path;

use stanchion_simulation::many::Place;

/// The program that plays a schedule.
const PROGRAM: &str = env!("CARGO_BIN_EXE_simulate");

fn place() -> Place {
    Place::new(Path::new(PROGRAM).to_owned()).expect("there is space for a node")
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    let (one, other) = (place(), place());
    for seed in 1..=20 {
        let first = one.play(seed).expect("a schedule is played");
        assert_eq!(first, other.play(seed).expect("a schedule is played"), "seed {seed}");
        assert_eq!(first.broken, None, "seed {seed}");
    }
}

/// Schedules within which each broken line is found. `cargo xtask simulate --mutants` tries more.
#[cfg(feature = "mutants")]
const SCHEDULES: u64 = 300;

#[cfg(feature = "mutants")]
#[test]
fn every_broken_line_is_found() {
    stanchion_simulation::many::mutants(SCHEDULES, Path::new(PROGRAM)).expect("each is found");
}
