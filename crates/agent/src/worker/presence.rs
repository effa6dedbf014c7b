//! A pod over all of its revisions: its UIDs, the times at which the agent first saw it, and its view while it is
//! removed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use stanchion_board::view::PodView;
use stanchion_plan::time::Stamp;
use stanchion_pod::{Pod, PodUid, Revision};
use stanchion_runtime::Runtime;

use super::context::Context;
use crate::{
    blocking,
    clock::{Clock, DisplayClock},
    desired::DesiredPod,
    removed::remembered,
};

/// UID of a pod that has ended by itself. The reconciler gives its capacity to other pods.
#[derive(Debug, Default)]
pub(crate) struct EndedPod(Mutex<Option<PodUid>>);

impl EndedPod {
    /// Returns whether the pod with this UID has ended; `None` matches any UID.
    pub fn matches(&self, uid: Option<&PodUid>) -> bool {
        self.lock().as_ref().is_some_and(|ended| uid.is_none_or(|uid| uid == ended))
    }

    /// Sets the UID. Returns whether it changed.
    fn set(&self, uid: Option<PodUid>) -> bool {
        std::mem::replace(&mut *self.lock(), uid.clone()) != uid
    }

    fn lock(&self) -> MutexGuard<'_, Option<PodUid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// State of a pod over all of its revisions.
#[derive(Debug)]
pub(super) struct Presence {
    /// The last wanted state of the pod, shown while the pod is being removed.
    last: Option<DesiredPod>,
    /// UIDs that the pod has or had. The clean-up removes their files.
    uids: BTreeSet<PodUid>,
    first_seen: Stamp,
    /// The latest revision after the first one, with the time at which the agent first saw it.
    revised: Option<(Revision, Stamp)>,
    /// Time since which no source wants the pod.
    deleted_since: Option<Timestamp>,
    /// Last view of the pod with its containers, while the pod is being removed.
    last_view: Option<PodView>,
    /// The rejected revision, once its event has been emitted.
    rejected: Option<Revision>,
    /// The revision whose `DeadlineExceeded` event has been emitted.
    past_deadline: Option<Revision>,
    ended: Arc<EndedPod>,
    /// Converter from `Instant`s to times of day.
    display_clock: DisplayClock,
}

impl Presence {
    /// Makes the presence of a pod. `uids` are those under which earlier agents recorded it.
    pub fn new(clock: Clock, uids: BTreeSet<PodUid>) -> (Self, Arc<EndedPod>) {
        let ended = Arc::new(EndedPod::default());
        let presence = Self {
            last: None,
            uids,
            first_seen: clock.stamp(),
            revised: None,
            deleted_since: None,
            last_view: None,
            rejected: None,
            past_deadline: None,
            ended: Arc::clone(&ended),
            display_clock: DisplayClock::new(clock),
        };
        (presence, ended)
    }

    /// Sets the wanted state. Returns the former one.
    pub fn want(&mut self, desired: &DesiredPod, now: Stamp) -> Option<DesiredPod> {
        (self.deleted_since, self.last_view) = (None, None);
        self.uids.insert(desired.pod.uid.clone());
        let last = self.last.replace(desired.clone());
        if last.as_ref().is_some_and(|last| last.pod.revision != desired.pod.revision) {
            self.revised = Some((desired.pod.revision.clone(), now));
        }
        last
    }

    /// Records that no source wants the pod.
    pub fn begin_removal(&mut self, now: Timestamp) {
        self.deleted_since.get_or_insert(now);
    }

    /// Returns the last wanted state.
    pub fn last(&self) -> Option<&DesiredPod> {
        self.last.as_ref()
    }

    /// Adds UIDs of the pod's sandboxes and containers.
    pub fn add(&mut self, uids: impl Iterator<Item = PodUid>) {
        self.uids.extend(uids);
    }

    /// Returns the UIDs that the pod has or had.
    pub fn uids(&self) -> &BTreeSet<PodUid> {
        &self.uids
    }

    /// Takes the UIDs that the pod has or had, to remove their files.
    pub fn take_uids(&mut self) -> BTreeSet<PodUid> {
        std::mem::take(&mut self.uids)
    }

    /// Returns the time at which the agent first saw this revision of the pod.
    pub fn since(&self, pod: &Pod) -> Stamp {
        let revised = self.revised.as_ref().filter(|(revision, _)| *revision == pod.revision);
        revised.map_or(self.first_seen, |(_, since)| *since)
    }

    /// Returns the time at which the agent first saw the pod.
    pub fn first_seen(&self) -> Stamp {
        self.first_seen
    }

    /// Returns the times at which the agent first saw the pod and its latest revision.
    pub fn first_seen_times(&self) -> [Stamp; 2] {
        [self.first_seen, self.revised.as_ref().map_or(self.first_seen, |(_, since)| *since)]
    }

    /// Returns the time since which no source wants the pod.
    pub fn deleted_since(&self) -> Timestamp {
        self.deleted_since.unwrap_or(self.first_seen.wall)
    }

    /// Keeps the view of a pod that is being removed, for [`Self::remember`]. A view with containers (`is_whole`)
    /// replaces any other one.
    pub fn keep_view(&mut self, view: &PodView, is_whole: bool) {
        if self.last_view.is_none() || is_whole {
            let manifest = self.last.as_ref().map(|last| last.manifest.to_string()).unwrap_or_default();
            self.last_view = Some(PodView { manifest, ..view.clone() });
        }
    }

    /// Saves the last view of the pod, of which nothing is left any more (R-TERM-7).
    pub async fn remember<R: Runtime>(&mut self, context: &Context<R>) {
        let Some(last) = self.last_view.take() else { return };
        let (removed, now) = (Arc::clone(&context.shared.removed), context.shared.clock.stamp());
        let pod = remembered(&last, now.wall);
        if let Err(error) = blocking(move || removed.keep(&pod, now)).await {
            tracing::warn!(%error, "cannot save the last status of a removed pod");
        }
    }

    /// Sets the UID under which the pod has ended by itself; `None` while it has not. Returns whether that changed.
    pub fn set_ended(&self, uid: Option<PodUid>) -> bool {
        self.ended.set(uid)
    }

    /// Sets the revision that the node rejects. Returns whether it changed.
    pub fn reject(&mut self, revision: Option<&Revision>) -> bool {
        let is_new = self.rejected.as_ref() != revision;
        self.rejected = revision.cloned();
        is_new
    }

    /// Records that the `DeadlineExceeded` event of a revision is emitted. Returns whether it was not before.
    pub fn announce_deadline(&mut self, revision: &Revision) -> bool {
        let is_new = self.past_deadline.as_ref() != Some(revision);
        self.past_deadline = Some(revision.clone());
        is_new
    }

    /// Returns the time of day of an instant, for display.
    pub fn time_of_day(&mut self, at: Instant) -> Timestamp {
        self.display_clock.time_of_day(at)
    }
}
