//! Bounds the number of trees of containers' files that are walked at once. Such a tree can have millions of files; a
//! user who makes many of them must not occupy all threads of the blocking pool, which also reads manifests and starts
//! pods (I8).

use std::io;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::PodFiles;
use crate::blocking;

/// Number of pods whose files are removed at once, and of pods that are measured at once.
const AT_ONCE: usize = 4;

static REMOVING: Semaphore = Semaphore::const_new(AT_ONCE);
static MEASURING: Semaphore = Semaphore::const_new(AT_ONCE);

/// Removes a pod's files, once a permit is free.
///
/// *Cancel-safe:* dropped while it waits, it removes nothing; a removal that has begun goes on to its end.
pub(crate) async fn remove(files: PodFiles) -> io::Result<()> {
    let permit = REMOVING.acquire().await.expect("nobody closes it");
    blocking(move || {
        let _permit = permit;
        files.remove()
    })
    .await
}

/// Takes a permit to measure a pod, if one is free. A worker does not wait for other pods' trees.
pub(crate) fn to_measure() -> Option<SemaphorePermit<'static>> {
    MEASURING.try_acquire().ok()
}
