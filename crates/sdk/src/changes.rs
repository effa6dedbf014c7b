//! Serialized changes: one at a time per sandbox or container, each to its end.
//!
//! A call that the agent gives up must not stop halfway: a cancelled creation would leave objects that nothing lists.
//! And a removal must wait for the creation that is still under way.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use stanchion_runtime::{Error, ErrorKind, Result};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Locks of the sandboxes and containers, by id.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<Mutex<HashMap<String, Weak<AsyncMutex<()>>>>>);

/// Lock on one sandbox or container.
pub type Turn = OwnedMutexGuard<()>;

impl Changes {
    /// Waits for the lock on `id`. Cancel-safe.
    pub async fn turn(&self, id: &str) -> Turn {
        let lock = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, lock| lock.strong_count() > 0);
            all.get(id).and_then(Weak::upgrade).unwrap_or_else(|| {
                let lock = Arc::default();
                all.insert(id.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// Runs a change to its end, whether or not the caller waits for it, and then releases the lock.
///
/// # Errors
/// Errors of the change; `Crashed` if it panicked.
pub async fn finish<T: Send + 'static>(
    turn: Turn,
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    #[allow(clippy::disallowed_methods, reason = "ends with the change; a panic in it is the caller's error")]
    let task = tokio::spawn(async move {
        let result = change.await;
        drop(turn);
        result
    });
    task.await.unwrap_or_else(|panic| {
        Err(Error::new(ErrorKind::Crashed, "a step of the backend ended abnormally").caused_by(&panic))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Changes, finish};

    #[tokio::test(start_paused = true)]
    async fn a_change_that_is_given_up_ends_before_the_next_begins() {
        let changes = Changes::default();
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let note = std::sync::Arc::clone(&done);
        let change = finish(changes.turn("one").await, async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            note.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        });
        assert!(tokio::time::timeout(Duration::from_secs(1), change).await.is_err(), "given up");
        drop(changes.turn("two").await);
        assert!(!done.load(std::sync::atomic::Ordering::SeqCst), "another thing does not wait");
        drop(changes.turn("one").await);
        assert!(done.load(std::sync::atomic::Ordering::SeqCst), "the same thing does");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_turn_back() {
        let changes = Changes::default();
        let failed = finish::<()>(changes.turn("one").await, async { panic!("on purpose") }).await;
        assert_eq!(failed.expect_err("it panicked").kind(), stanchion_runtime::ErrorKind::Crashed);
        drop(changes.turn("one").await);
    }
}
