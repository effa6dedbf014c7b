//! How many pods make sandboxes and containers at once: more than the cores have time for only get into each other's way.

use std::{sync::Arc, thread};

use tokio::sync::{Semaphore, SemaphorePermit};

/// One backend's. Some are its own, so that a backend that hangs holds up nobody else's pods; the others are for whichever
/// backend asks first.
#[derive(Debug)]
pub(crate) struct Permits {
    own: Semaphore,
    spare: Arc<Semaphore>,
}

impl Permits {
    /// What all backends of a node share: as many as a backend has for its own.
    pub fn spare() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(each()))
    }

    /// A backend's, with its part in what is shared.
    pub fn beside(spare: &Arc<Semaphore>) -> Self {
        Self { own: Semaphore::new(each()), spare: Arc::clone(spare) }
    }

    /// Waits for one. Neither kind is ever closed; without a permit the work goes on unbounded rather than not at all.
    pub async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            biased;
            own = self.own.acquire() => own.ok(),
            spare = self.spare.acquire() => spare.ok(),
        }
    }
}

/// One for each core.
fn each() -> usize {
    thread::available_parallelism().map_or(2, usize::from).max(2)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn all<'a>(permits: &'a Permits) -> Vec<SemaphorePermit<'a>> {
        std::iter::from_fn(|| permits.acquire().now_or_never().flatten()).collect()
    }

    #[test]
    fn alone_a_backend_has_its_own_and_what_is_shared() {
        let spare = Permits::spare();
        assert_eq!(all(&Permits::beside(&spare)).len(), 2 * each());
    }

    #[test]
    fn a_backend_that_holds_all_it_can_leaves_another_its_own() {
        let spare = Permits::spare();
        let (hung, other) = (Permits::beside(&spare), Permits::beside(&spare));
        let held = all(&hung);
        let others = all(&other);
        assert_eq!(others.len(), each());
        drop((held, others));
        assert_eq!(all(&other).len(), 2 * each(), "what was shared is there again");
    }
}
