//! Registries that refuse: the backend's errors for Docker's messages.

#![allow(clippy::disallowed_methods, reason = "tests read and remove what they have made")]
#![allow(missing_docs, reason = "a test")]

mod support;

use anyhow::{Result, ensure};
use serde_json::json;
use stanchion_runtime::{ErrorKind, Progress, PullImage, RegistryAuth, Runtime};
use stanchion_tests::proxy::{Fault, Proxy};
use support::{Bed, said};

const ALWAYS: u32 = u32::MAX;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn refusals_have_a_kind_and_credentials_are_given() -> Result<()> {
    let bed = Bed::new()?;
    let proxy = Proxy::start(bed.registry.address())?;
    let reference = format!("{}/library/busybox:latest", proxy.address());
    let pull = |auth: Option<&str>| {
        let auth = auth.map(|password| RegistryAuth {
            username: "user".to_owned(),
            password: password.to_owned(),
            ..RegistryAuth::default()
        });
        bed.backend.pull_image(PullImage { reference: reference.clone(), auth }, Progress::ignored())
    };
    proxy.fault("/v2/", ALWAYS, Fault::Login);
    for wrong in [None, Some("wrong")] {
        let error = pull(wrong).await.expect_err("it wants credentials");
        ensure!(error.kind() == ErrorKind::Permission, "with {wrong:?}: {:?}: {}", error.kind(), error.chain());
        ensure!(error.chain().contains("[backend.docker.registry."), "no way out: {}", error.chain());
    }
    pull(Some("secret")).await.map_err(said)?;

    println!("credentials of the configuration");
    bed.backend.remove_image(reference.clone()).await.map_err(said)?;
    let login = json!({ "username": "user", "password": "secret" });
    let configured = bed.open(json!({ "registry": { proxy.address(): login } }))?;
    let request = PullImage { reference: reference.clone(), auth: None };
    configured.pull_image(request, Progress::ignored()).await.map_err(said)?;

    println!("a registry that is busy, one in trouble, and one that is not there");
    for (status, header) in [("429 Too Many Requests", "Retry-After: 7"), ("503 Service Unavailable", "X-None: 1")] {
        proxy.heal();
        proxy.fault("/v2/", ALWAYS, Fault::Refuse { status, header });
        let error = pull(None).await.expect_err("it refuses");
        ensure!(error.kind() == ErrorKind::Unavailable, "{status}: {:?}: {}", error.kind(), error.chain());
        ensure!(error.retry_delay().is_some() == status.starts_with("429"), "{status}: {:?}", error.retry_delay());
    }
    drop(proxy);
    let error = pull(None).await.expect_err("nobody answers");
    ensure!(error.kind() == ErrorKind::Unavailable, "{:?}: {}", error.kind(), error.chain());
    Ok(())
}
