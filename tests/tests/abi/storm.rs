//! Many concurrent calls, most of them cancelled at random moments: each ends exactly once.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stanchion_runtime::Runtime as _;
use stanchion_tests::random::Random;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, yield_now},
    time::timeout,
};

use crate::{build, open};

const CALLS: usize = 40_000;
const AT_ONCE: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forty_thousand_calls_end_once_each() {
    let backend = open(&build::rust("dev"), "fake", json!({})).await.expect("it loads");
    let mut random = Random::announced("storm");
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for _ in 0..CALLS {
        let permit = Arc::clone(&room).acquire_owned().await.expect("never closed");
        let (backend, patience) = (backend.clone(), random.below(200));
        calls.spawn(async move {
            let _permit = permit;
            match patience {
                // A few calls may finish.
                0..10 => backend.list().await.is_ok(),
                // Cancelled between start and answer, or while queued.
                10..100 => {
                    let call = backend.list();
                    tokio::pin!(call);
                    tokio::select! { biased; answer = &mut call => answer.is_ok(), () = yield_now() => false }
                }
                _ => matches!(timeout(Duration::from_micros(patience), backend.list()).await, Ok(Ok(_))),
            }
        });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        answered += usize::from(call.expect("no call panics"));
    }
    for _ in 0..500 {
        if backend.calls_under_way() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{answered} of {CALLS} answered");
    assert!((1..CALLS).contains(&answered), "all or none were given up: this is no storm");
    assert_eq!((backend.calls_under_way(), backend.stuck_calls()), (0, 0));
    backend.list().await.expect("it answers as before");
}
