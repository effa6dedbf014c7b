//! Backends that misbehave: each fault delays or fails only its own call, and is logged (I8).

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use stanchion_loader::LoadedBackend;
use stanchion_runtime::{ErrorKind, EventKind, Runtime as _};
use tokio::time::timeout;
use tracing::Instrument as _;

use crate::{build, logged, open};

async fn unruly(config: Value) -> LoadedBackend {
    logged::begin();
    open(&build::rust("dev"), "unruly", config).await.expect("it opens")
}

/// Checks that the backend still answers.
async fn answers(backend: &LoadedBackend) {
    let answer = timeout(Duration::from_secs(10), backend.remove_image("any".to_owned())).await;
    answer.expect("it answers").expect("it does as asked");
}

#[tokio::test]
async fn a_panic_ends_only_its_call_and_is_logged() {
    let backend = unruly(json!({})).await;
    for _ in 0..3 {
        let error = backend.version().await.expect_err("it panicked");
        assert_eq!(error.kind(), ErrorKind::Crashed);
        assert!(error.chain().contains("unruly version"), "{}", error.chain());
    }
    answers(&backend).await;
    logged::line(&["ERROR", "unruly", "tripped over version"]).await;
}

#[tokio::test]
async fn a_panic_or_an_error_while_opening_is_an_error_of_opening() {
    logged::begin();
    let library = build::rust("dev");
    for (how, kind, said) in
        [("panic", ErrorKind::Crashed, "panicked"), ("fail", ErrorKind::Permission, "the daemon does not let us in")]
    {
        let error = open(&library, "unruly", json!({"open": how})).await.expect_err("it does not open");
        assert_eq!(error.kind(), kind);
        assert!(
            error.chain().starts_with("opening backend unruly") && error.chain().contains(said),
            "{}",
            error.chain()
        );
    }
    logged::line(&["ERROR", "tripped while opening"]).await;
    answers(&unruly(json!({})).await).await;
}

#[tokio::test]
async fn a_call_that_never_answers_is_given_up_and_ends() {
    let backend = unruly(json!({})).await;
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(2), backend.list()).await.is_err(), "it never answers");
    }
    answers(&backend).await;
    all_ended(&backend).await;
}

/// Checks that a panic in the destructor of a cancelled call is caught and logged.
#[tokio::test]
async fn a_panic_while_being_given_up_is_caught() {
    let backend = unruly(json!({})).await;
    assert!(timeout(Duration::from_millis(50), backend.list_images()).await.is_err());
    logged::line(&["ERROR", "tripped while being given up"]).await;
    answers(&backend).await;
    all_ended(&backend).await;
}

#[tokio::test]
async fn a_call_that_cannot_be_given_up_is_counted_and_told() {
    let backend = unruly(json!({})).await;
    assert!(timeout(Duration::from_millis(50), backend.stats()).await.is_err());
    logged::line(&["WARN", "unruly", "a cancelled call has not ended in time", "method=13"]).await;
    assert_eq!(backend.stuck_calls(), 1);
    // Another instance of the backend has its own threads.
    answers(&unruly(json!({})).await).await;
}

#[tokio::test]
async fn a_flood_of_events_becomes_one_order_to_look() {
    let backend = unruly(json!({})).await;
    let mut events = Box::pin(backend.events());
    // Nobody reads during the flood: the backend must not wait, and the host drops the events it cannot queue.
    all_but_told(&backend).await;
    let mut read = Vec::new();
    while let Some(event) = events.next().await {
        read.push(event);
    }
    assert!(events.next().await.is_none(), "a stream that has ended goes on");
    assert_eq!(read[0].as_ref().expect("an event").kind, EventKind::Resync);
    assert!(read.len() <= 258, "{} events were kept", read.len());
    let end = read.pop().expect("more than one").expect_err("it panicked at the end");
    assert_eq!(end.kind(), ErrorKind::Crashed);
    answers(&backend).await;
}

/// Waits until the flood has ended: until its call is answered.
async fn all_but_told(backend: &LoadedBackend) {
    all_ended(backend).await;
}

#[tokio::test]
async fn a_slow_close_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let closed = dir.path().join("closed");
    let backend = unruly(json!({"close_ms": 1500, "closed": closed})).await;
    drop(backend);
    assert!(!closed.exists(), "closing was waited for");
    for _ in 0..500 {
        if closed.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was never closed");
}

/// Checks that a backend's log lines belong to the tracing span of the call.
#[tokio::test]
async fn what_it_says_belongs_to_the_call() {
    let backend = unruly(json!({})).await;
    let span = tracing::info_span!("pod", name = "redis-node-1");
    backend.remove_image("some/image:1".to_owned()).instrument(span).await.expect("it does as asked");
    let line = logged::line(&["removing as asked", "redis-node-1"]).await;
    for word in ["INFO", "some/image:1", "backend=unruly", "fixture_backend::unruly"] {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

/// Waits until every call of the backend is answered.
async fn all_ended(backend: &LoadedBackend) {
    for _ in 0..500 {
        if backend.calls_under_way() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} calls have not ended", backend.calls_under_way());
}
