//! Processes of a pod that no backend knows, because the backend has lost its records of them. The worker starts
//! nothing of the pod until they have ended (I1). Only the operator can tell whether they may be killed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use stanchion_plan::time::after;
use stanchion_pod::PodUid;

use crate::{clock::instant, processes::PodProcesses};

/// Interval between searches while processes may be left. Most of these end soon.
const SEARCH_PERIOD: Duration = Duration::from_millis(500);

/// Result of the search for such processes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Unowned {
    /// No search: a backend lists the pod, or the pod was never put on one.
    #[default]
    NotSearched,
    /// No process of these UIDs is left.
    None(BTreeSet<PodUid>),
    /// Processes may be left, for the reason in the text.
    Some(String),
}

impl Unowned {
    /// Searches for processes if the pod has vanished: it was put on backends, and none of them lists it. Returns the
    /// time to search again.
    pub async fn search(
        &mut self,
        has_vanished: bool,
        processes: &PodProcesses,
        uids: &BTreeSet<PodUid>,
    ) -> Option<Instant> {
        if !has_vanished {
            *self = Self::NotSearched;
            return None;
        }
        if matches!(self, Self::None(searched) if uids.is_subset(searched)) {
            return None;
        }
        *self = match processes.any_of(uids).await {
            Ok(None) => Self::None(uids.clone()),
            Ok(Some(uid)) => Self::Some(format!(
                "a process in the cgroup of pod {uid} runs, and no backend knows of it; nothing of the pod is started until \
                 it has ended"
            )),
            Err(error) => Self::Some(format!("cannot check whether processes of the pod are left: {error}")),
        };
        matches!(self, Self::Some(_)).then(|| after(instant(), SEARCH_PERIOD))
    }

    /// Returns why the pod must not be started or cleaned up now.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Some(why) => Some(why),
            Self::NotSearched | Self::None(_) => None,
        }
    }
}
