//! Processes of a pod that no backend knows any more, because the backend has lost its records of them. Until they have
//! ended, the worker starts nothing of the pod (I1). Only the operator can tell whether they may be killed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use stanchion_plan::{observed::Remains, time::after};
use stanchion_runtime::Runtime;

use super::Worker;
use crate::clock::instant;

/// Interval between searches while processes may be left. Most of them are about to end.
const AGAIN: Duration = Duration::from_millis(500);

/// Result of the search for such processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Strays {
    /// No search: a backend shows the pod, or it was never put on one.
    #[default]
    Unsought,
    /// No process is left.
    None,
    /// Processes may be left; the text says why.
    Some(String),
}

impl<R: Runtime> Worker<R> {
    /// Searches for processes when a pod that was put on a backend is on none. Returns when to search again.
    pub(super) async fn look_for_strays(&mut self, remains: &[(String, Arc<Remains>)]) -> Option<Instant> {
        if !remains.is_empty() || !self.has_vanished() {
            self.strays = Strays::Unsought;
            return None;
        }
        if self.strays == Strays::None {
            return None;
        }
        self.strays = match self.shared.survivors.any_of(&self.known_uids()).await {
            Ok(None) => Strays::None,
            Ok(Some(uid)) => Strays::Some(format!(
                "a process in the cgroup of pod {uid} runs, and no backend knows of it; nothing of the pod is started until \
                 it has ended"
            )),
            Err(error) => Strays::Some(format!("cannot check whether processes of the pod are left: {error}")),
        };
        matches!(self.strays, Strays::Some(_)).then(|| after(instant(), AGAIN))
    }

    /// Returns why the pod must not be started or cleaned up now.
    pub(super) fn stray(&self) -> Option<&str> {
        match &self.strays {
            Strays::Some(why) => Some(why),
            Strays::Unsought | Strays::None => None,
        }
    }
}
