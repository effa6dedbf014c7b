//! The contract's own suite, on a real dockerd.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

mod support;

use anyhow::{Result, ensure};
use stanchion_runtime::testing::conformance::{self, ImageSource, Options};
use support::Bed;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn docker_keeps_the_contract() -> Result<()> {
    let bed = Bed::new()?;
    let mut options = Options::pulling(&bed.image, bed.path("logs"));
    // `CONFORMANCE_ONLY` selects one group of cases, while one works on it.
    options.only = std::env::var("CONFORMANCE_ONLY").ok();
    keeps(&bed, &options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn docker_keeps_the_contract_for_archives() -> Result<()> {
    let bed = Bed::new()?;
    for (image, archive) in [
        ("docker.io/preloaded/busybox:docker", bed.fixtures.docker_archive()),
        // Docker of this age cannot read an OCI layout by itself.
        ("docker.io/preloaded/busybox:oci", bed.fixtures.oci_archive()),
    ] {
        let mut options = Options::pulling(image, bed.path("logs"));
        options.source = ImageSource::Import { archive };
        options.only = Some("images".to_owned());
        keeps(&bed, &options).await?;
    }
    Ok(())
}

async fn keeps(bed: &Bed, options: &Options) -> Result<()> {
    let transcript = conformance::run(&bed.backend, options).await;
    println!("{transcript}");
    ensure!(!transcript.cases.is_empty(), "no case ran");
    ensure!(transcript.failures().is_empty(), "rules of the contract are broken:\n{transcript}");
    // Docker has one range of users for all of its containers, or none.
    let unsupported = transcript.unsupported();
    ensure!(unsupported.iter().all(|case| case.starts_with("users.")), "not supported: {unsupported:?}");
    bed.nothing_left()
}
