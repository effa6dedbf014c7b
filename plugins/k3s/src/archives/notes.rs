//! Outcome of files and lines, and the time of the next try for those that failed.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stanchion_sdk::clock;
use tokio::time::Instant;

use super::Seen;

/// Wait after a failure; it doubles after each further failure, up to the longest, as with a kubelet's images.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// Archive, or line of a list, to import into a containerd.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Item {
    /// Containerd that is to have it.
    pub place: &'static str,
    /// The file, as it was seen: a file that has changed is another item.
    pub path: PathBuf,
    pub seen: Seen,
    /// The reference; `None` for a whole file.
    pub line: Option<String>,
}

/// Outcome of each item. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<HashMap<Item, Note>>>);

#[derive(Debug)]
enum Note {
    Done,
    Failed { wait: Duration, again: Instant, error: String },
}

impl Notes {
    /// Returns whether an item is due now.
    pub fn is_due(&self, item: &Item) -> bool {
        match self.lock().get(item) {
            None => true,
            Some(Note::Done) => false,
            Some(Note::Failed { again, .. }) => *again <= clock::instant(),
        }
    }

    /// Returns whether nobody has tried to import an item yet.
    pub fn is_new(&self, item: &Item) -> bool {
        !self.lock().contains_key(item)
    }

    /// Returns whether an item was imported.
    pub fn is_done(&self, item: &Item) -> bool {
        matches!(self.lock().get(item), Some(Note::Done))
    }

    /// Notes that an item was imported.
    pub fn done(&self, item: Item) {
        self.lock().insert(item, Note::Done);
    }

    /// Notes a failure, so that the item is left alone for a while. Returns whether the failure or its reason is new.
    pub fn failed(&self, item: Item, error: &str) -> bool {
        let mut notes = self.lock();
        let (wait, is_new) = match notes.get(&item) {
            Some(Note::Failed { wait, error: last, .. }) => ((*wait * 2).min(LONGEST), last != error),
            _ => (BACKOFF, true),
        };
        notes.insert(item, Note::Failed { wait, again: clock::instant() + wait, error: error.to_owned() });
        is_new
    }

    /// Forgets the files of a containerd that are gone, or have changed.
    pub fn keep(&self, place: &'static str, found: &[(PathBuf, Seen)]) {
        let is_there = |item: &Item| found.iter().any(|(path, seen)| *path == item.path && *seen == item.seen);
        self.lock().retain(|item, _| item.place != place || is_there(item));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Item, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
