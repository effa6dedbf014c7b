//! Blocking work, e.g. on files, on tokio's pool.

use std::{future::pending, panic::resume_unwind};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{spawn_blocking, yield_now},
};
use tracing::Span;

/// Runs blocking work on the blocking pool, in the caller's span. A panic of the work becomes the caller's: in the agent
/// the task's supervisor reports it, in a backend it ends the call as [`Crashed`](crate::ErrorKind::Crashed).
///
/// On a single-threaded runtime, which only tests have, it runs the work in place: such a test is deterministic, but its
/// work cannot wait for other tasks.
///
/// *Cancel-safe:* work that has begun runs to its end.
#[expect(clippy::disallowed_methods, reason = "this is the helper")]
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = Span::current();
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        // An await as on the pool: other tasks run, and the caller may be dropped.
        yield_now().await;
        let done = span.in_scope(work);
        yield_now().await;
        return done;
    }
    match spawn_blocking(move || span.in_scope(work)).await.map_err(|error| error.try_into_panic()) {
        Ok(done) => done,
        Err(Ok(panic)) => resume_unwind(panic),
        // The tokio runtime ends, and the caller with it.
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
