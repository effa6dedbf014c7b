//! Restart requests of users, kept until the pod's worker takes them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Restart requests of one pod. Adding one never waits for the worker. Equal requests merge, so that they cannot fill
/// the memory.
#[derive(Debug, Default)]
pub(crate) struct RestartRequests {
    wanted: Mutex<Restarts>,
    made: Notify,
}

/// Restarts to perform.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// `true` to restart the pod with its sandbox.
    pub pod: bool,
    /// Names of single containers to restart.
    pub containers: BTreeSet<String>,
}

impl Restarts {
    /// Returns whether there is nothing to restart.
    pub fn is_empty(&self) -> bool {
        !self.pod && self.containers.is_empty()
    }
}

impl RestartRequests {
    /// Requests a restart of one container, or of the pod for `None`.
    pub fn restart(&self, container: Option<String>) {
        let mut wanted = self.lock();
        match container {
            Some(name) => drop(wanted.containers.insert(name)),
            None => wanted.pod = true,
        }
        drop(wanted);
        self.made.notify_one();
    }

    /// Takes all requests made so far.
    pub fn take(&self) -> Restarts {
        std::mem::take(&mut self.lock())
    }

    /// Waits until there is a request.
    ///
    /// *Cancel-safe:* a request stays until it is taken.
    pub async fn made(&self) {
        while self.lock().is_empty() {
            self.made.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Restarts> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
