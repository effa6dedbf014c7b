//! Turns for work that goes through trees of containers' making. Such a tree can have millions of files: whoever makes many of
//! them must not have all threads of the blocking pool, on which manifests are read and pods are started (I8).

use std::io;

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::{JoinError, spawn_blocking},
};

use super::PodFiles;

/// How many pods' files are removed at once, and how many are measured.
const AT_ONCE: usize = 4;

static REMOVING: Semaphore = Semaphore::const_new(AT_ONCE);
static MEASURING: Semaphore = Semaphore::const_new(AT_ONCE);

/// Removes a pod's files when it is their turn.
///
/// *Cancel-safe:* given up while it waits, nothing is removed; what has begun goes on to its end.
pub(crate) async fn remove(files: PodFiles) -> Result<io::Result<()>, JoinError> {
    let turn = REMOVING.acquire().await.expect("nobody closes it");
    spawn_blocking(move || {
        let _turn = turn;
        files.remove()
    })
    .await
}

/// Takes a turn to measure a pod, if there is one now: a worker does not wait for other pods' trees.
pub(crate) fn to_measure() -> Option<SemaphorePermit<'static>> {
    MEASURING.try_acquire().ok()
}
