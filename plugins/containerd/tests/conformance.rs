//! The contract's own suite, on a real containerd.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

mod support;

use anyhow::{Result, ensure};
use stanchion_runtime::testing::conformance::{self, Options};
use support::Bed;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn containerd_keeps_the_contract() -> Result<()> {
    let bed = Bed::new()?;
    let mut options = Options::pulling(&bed.image, bed.path("logs"));
    // One group of cases, while one works on it.
    options.only = std::env::var("CONFORMANCE_ONLY").ok();
    let transcript = conformance::run(&bed.backend, &options).await;
    println!("{transcript}");
    ensure!(!transcript.cases.is_empty(), "no case ran");
    ensure!(transcript.failures().is_empty(), "rules of the contract are broken:\n{transcript}");
    // An open input without a terminal: containerd's shim has none beside a logger.
    ensure!(transcript.unsupported() == ["environment.input"], "not supported: {:?}", transcript.unsupported());
    bed.nothing_left().await
}
