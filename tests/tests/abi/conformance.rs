//! The conformance suite on one runtime, reached in four ways: directly, over the ABI without a library, and through
//! two libraries that were built separately. All four must give the same transcript.

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use stanchion_loader::LoadedBackend;
use stanchion_runtime::{
    Failover, Health, OnReturn, OpenRequest, Runtime,
    testing::{
        FakeRuntime,
        conformance::{self, Options, Transcript},
    },
};
use stanchion_sdk::abi;

use crate::{build, open};

const IMAGE: &str = "registry.test/busybox:1";

static LINKED: abi::Backend = stanchion_sdk::descriptor::<FakeRuntime>("fake", "0.1.0");

async fn transcript(runtime: &impl Runtime) -> Transcript {
    let dir = tempfile::tempdir().expect("a directory");
    let options = Options { patience: Duration::from_secs(20), ..Options::pulling(IMAGE, dir.path()) };
    conformance::run(runtime, &options).await
}

async fn direct() -> Transcript {
    let fake = FakeRuntime::new();
    fake.publish(IMAGE, 2_000_000);
    let transcript = transcript(&fake).await;
    assert!(transcript.failures().is_empty() && transcript.cases.len() > 50, "{transcript}");
    transcript
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_boundary_without_a_library() {
    let open = OpenRequest { config: json!({"publish": [IMAGE]}), ..OpenRequest::default() };
    let linked = LoadedBackend::from_static(&LINKED, "fake", open).await.expect("it opens");
    assert_eq!(transcript(&linked).await, direct().await);
}

async fn loaded(profile: &str) {
    let library = build::rust(profile);
    let failover = Some(Failover { on_return: OnReturn::Migrate });
    let health = Health { state: "asleep".to_owned(), message: "It sleeps".to_owned(), failover };
    let backend = open(&library, "fake", json!({"publish": [IMAGE], "health": health})).await.expect("it loads");
    assert_eq!(backend.health().await.expect("it answers"), health);
    let (through, direct) = (transcript(&backend).await, direct().await);
    assert_eq!(through, direct, "through the library:\n{through}\ndirectly:\n{direct}");
    assert_eq!((backend.calls_under_way(), backend.stuck_calls()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_library_that_was_not_optimised() {
    loaded("dev").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_library_with_everything_optimised() {
    loaded("release").await;
}

/// Checks the premise of the library tests: host and library share the ABI only, not even the version of tokio.
#[test]
fn libraries_that_are_built_apart_have_a_tokio_of_their_own() {
    let version = |lock: &Path| {
        let text = fs::read_to_string(lock).expect("a lock file");
        let after = text.split("name = \"tokio\"\nversion = \"").nth(1).expect("tokio is in it").to_owned();
        after.split('"').next().expect("the version is quoted").to_owned()
    };
    let ours = version(&build::sources().join("../../Cargo.lock"));
    for its in ["rust/Cargo.lock", "../../examples/backend-minimal/Cargo.lock"] {
        assert_ne!(version(&build::sources().join(its)), ours, "{its}");
    }
}

#[tokio::test]
async fn an_unknown_key_of_its_configuration_is_named() {
    let error = open(&build::rust("dev"), "fake", json!({"publsh": []})).await.expect_err("a typo");
    assert!(error.chain().contains("publsh") && error.chain().contains("publish"), "{}", error.chain());
}
