//! Blocking work, e.g. on files, on tokio's pool.

use std::{future::pending, panic::resume_unwind};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{spawn_blocking, yield_now},
};
use tracing::Span;

/// Runs blocking work beside the async threads, in the caller's span. A panic in it is the caller's: the supervisor of the
/// caller's task reports it.
///
/// On a runtime of one thread, which only tests have, the work is done in place: a test goes the same way each time.
///
/// *Cancel-safe:* work that has begun goes on to its end.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = Span::current();
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        // The awaits of a thread of its own: other tasks go on, and the caller may be dropped.
        yield_now().await;
        let done = span.in_scope(work);
        yield_now().await;
        return done;
    }
    match spawn_blocking(move || span.in_scope(work)).await.map_err(|error| error.try_into_panic()) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The runtime ends, and the caller with it.
        Err(Err(_)) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt as _;

    use super::*;

    async fn panics() {
        assert_eq!(blocking(|| 7).await, 7);
        let panicked = AssertUnwindSafe(blocking(|| panic!("expected"))).catch_unwind().await;
        assert!(panicked.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_the_callers() {
        panics().await;
    }

    #[tokio::test]
    async fn a_panic_in_place_is_the_callers() {
        panics().await;
    }
}
