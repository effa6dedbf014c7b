//! A short soak: `cargo xtask soak` runs a long one.

use std::time::Duration;

use anyhow::{Result, ensure};
use stanchion_tests::{
    Backend,
    random::Random,
    soak::{self, Options},
};

stanchion_tests::on_each_runtime! {
    random_edits_kills_and_hostile_input_leave_nothing,
}

/// Long enough for every kind of action.
const DURING: Duration = Duration::from_secs(90);

fn random_edits_kills_and_hostile_input_leave_nothing(on: Backend) -> Result<()> {
    let options = Options {
        runtime: on,
        during: DURING,
        seed: Random::announced("soak").draw(),
        without: Vec::new(),
        live_restore: true,
        programs: None,
        actions: soak::actions_dir(on)?,
    };
    let report = soak::run(&options, &|| false)?;
    println!("{}", soak::table(std::slice::from_ref(&report)));
    ensure!(report.faults.is_empty(), "{:#?}; its actions are in {}", report.faults, report.actions.display());
    ensure!(report.rounds > 0, "no round was done");
    Ok(())
}
