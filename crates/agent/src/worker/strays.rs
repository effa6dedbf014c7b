//! Processes of a pod that no backend knows of any more, because what it had noted of them is gone: until they have ended,
//! nothing of the pod is started (I1). Nobody but the operator can tell whether they may be killed.

use std::{sync::Arc, time::Duration};

use stanchion_runtime::Runtime;
use tokio::time::Instant;

use super::Worker;
use crate::{
    clock::{after, instant},
    observe::Remains,
};

/// How often they are looked for until there are none. Most are about to end.
const AGAIN: Duration = Duration::from_millis(500);

/// What is known of such processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Strays {
    /// The pod is seen, or was never put anywhere.
    #[default]
    Unsought,
    /// There are none.
    None,
    /// There may be some; in words.
    Some(String),
}

impl<R: Runtime> Worker<R> {
    /// Looks for them when a pod that was put somewhere is nowhere to be seen. The answer is when to look again.
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
            Err(error) => Strays::Some(format!("whether processes of the pod are left cannot be seen: {error}")),
        };
        matches!(self.strays, Strays::Some(_)).then(|| after(instant(), AGAIN))
    }

    /// Why the pod must not be started or given up now.
    pub(super) fn stray(&self) -> Option<&str> {
        match &self.strays {
            Strays::Some(why) => Some(why),
            Strays::Unsought | Strays::None => None,
        }
    }
}
