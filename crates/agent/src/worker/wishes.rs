//! Restarts that users have asked for, until the pod's worker takes them up.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The wishes of one pod. Whoever adds one never waits for the worker: equal wishes are one, so they take no room either.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    wanted: Mutex<Restarts>,
    made: Notify,
}

/// What is to be restarted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// The pod with its sandbox.
    pub pod: bool,
    /// Single containers, by name.
    pub containers: BTreeSet<String>,
}

impl Restarts {
    /// Whether nothing is to be restarted.
    pub fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }
}

impl Wishes {
    /// Asks for a restart of one container, or of the pod.
    pub fn restart(&self, container: Option<String>) {
        let mut wanted = self.lock();
        match container {
            Some(name) => drop(wanted.containers.insert(name)),
            None => wanted.pod = true,
        }
        drop(wanted);
        self.made.notify_one();
    }

    /// Takes what has been asked for so far.
    pub fn take(&self) -> Restarts {
        std::mem::take(&mut self.lock())
    }

    /// Waits until something has been asked for.
    ///
    /// *Cancel-safe:* a wish stays until it is taken.
    pub async fn made(&self) {
        while self.lock().is_empty() {
            self.made.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Restarts> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
