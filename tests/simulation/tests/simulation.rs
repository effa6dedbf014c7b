//! Tests of the simulation: a seed goes the same way each time, and seeds that once broke an invariant do so no more.

use std::path::Path;

use stanchion_simulation::many::Place;

/// The program that plays a schedule.
const PROGRAM: &str = env!("CARGO_BIN_EXE_simulate");
/// Seeds whose schedules broke an invariant when they were found.
const FOUND: [u64; 8] = [8, 40, 62, 1274, 1367, 1531, 1566, 1041];

fn place() -> Place {
    Place::new(Path::new(PROGRAM).to_owned()).expect("there is space for a node")
}

#[test]
fn a_seed_goes_the_same_way_each_time() {
    let (one, other) = (place(), place());
    for seed in 1..=20 {
        let first = one.play(seed).expect("a schedule is played");
        assert_eq!(first, other.play(seed).expect("a schedule is played"), "seed {seed}");
        assert_ne!(first.hash, 0, "seed {seed}: {:?}", first.broken);
    }
}

#[test]
fn seeds_that_broke_an_invariant_do_so_no_more() {
    let place = place();
    for seed in FOUND {
        let told = place.play(seed).expect("a schedule is played");
        assert_eq!(told.broken, None, "seed {seed}");
    }
}

/// Schedules within which each broken line is found here; they are far fewer than the simulation may take.
#[cfg(feature = "mutants")]
const SCHEDULES: u64 = 300;

#[cfg(feature = "mutants")]
#[test]
fn every_broken_line_is_found() {
    stanchion_simulation::many::mutants(SCHEDULES, Path::new(PROGRAM)).expect("each is found");
}
