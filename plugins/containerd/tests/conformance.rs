//! The contract's own suite, on a real containerd.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

mod support;

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use stanchion_runtime::{
    ContainerConfig, ContainerState, Progress, PullImage, Runtime as _, SandboxConfig,
    testing::conformance::{self, Options},
};
use support::{Bed, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn containerd_keeps_the_contract() -> Result<()> {
    let bed = Bed::new()?;
    let mut options = Options::pulling(&bed.image, bed.path("logs"));
    // `CONFORMANCE_ONLY` selects one group of cases, while one works on it.
    options.only = std::env::var("CONFORMANCE_ONLY").ok();
    let transcript = conformance::run(&bed.backend, &options).await;
    println!("{transcript}");
    ensure!(!transcript.cases.is_empty(), "no case ran");
    ensure!(transcript.failures().is_empty(), "rules of the contract are broken:\n{transcript}");
    // Standard input without a terminal: containerd's shim has none beside a logger.
    ensure!(transcript.unsupported() == ["environment.input"], "not supported: {:?}", transcript.unsupported());
    bed.nothing_left().await
}

/// Checks the next start of a container while containerd still undoes one whose agent was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_waits_until_containerd_has_taken_back_one_that_was_given_up() -> Result<()> {
    let bed = Bed::new()?;
    let pull = PullImage { reference: bed.image.clone(), ..PullImage::default() };
    bed.backend.pull_image(pull, Progress::ignored()).await.map_err(said)?;
    let config = SandboxConfig { name: "pod".to_owned(), uid: "1".to_owned(), ..SandboxConfig::default() };
    let sandbox = bed.backend.create_sandbox(config).await.map_err(said)?.id;
    let command = Some(["sleep", "1000"].map(str::to_owned).to_vec());
    let (name, image) = ("main".to_owned(), bed.image.clone());
    let config = ContainerConfig { sandbox: sandbox.clone(), name, image, command, ..ContainerConfig::default() };
    let id = bed.backend.create_container(config).await.map_err(said)?;

    let tasks = bed.path("containerd/state/io.containerd.runtime.v2.task").join(&bed.names().namespace);
    let bundle = tasks.join(id.as_str());
    fs::create_dir_all(&bundle)?;
    let start = bed.backend.start_container(id.clone());
    let take_back = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fs::remove_dir(&bundle)
    };
    let (started, taken_back) = tokio::join!(start, take_back);
    taken_back?;
    started.map_err(said)?;
    let listed = bed.backend.list().await.map_err(said)?;
    let found = listed.containers.iter().find(|found| found.id == id).map(|found| &found.state);
    ensure!(matches!(found, Some(ContainerState::Running { .. })), "it is {found:?}");

    bed.backend.stop_sandbox(sandbox.clone()).await.map_err(said)?;
    bed.backend.remove_sandbox(sandbox).await.map_err(said)?;
    bed.nothing_left().await
}
