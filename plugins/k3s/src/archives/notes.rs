//! What became of files and lines, and when those that failed are tried again.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use stanchion_sdk::clock;
use tokio::time::Instant;

use super::Seen;

/// How long what has failed is left alone; twice as long after each further failure, up to the longest, as a kubelet
/// leaves images alone.
const BACKOFF: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);

/// An archive, or a line of a list, that a containerd is to be brought.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Item {
    /// The containerd.
    pub place: &'static str,
    /// The file, as it was seen: one that has changed is another.
    pub path: PathBuf,
    pub seen: Seen,
    /// The reference; `None` for a whole file.
    pub line: Option<String>,
}

/// The outcome of each item. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes(Arc<Mutex<HashMap<Item, Note>>>);

#[derive(Debug)]
enum Note {
    Done,
    Failed { wait: Duration, again: Instant, error: String },
}

impl Notes {
    /// Tells whether it is to be brought now.
    pub fn is_due(&self, item: &Item) -> bool {
        match self.lock().get(item) {
            None => true,
            Some(Note::Done) => false,
            Some(Note::Failed { again, .. }) => *again <= clock::instant(),
        }
    }

    /// Tells whether nobody has tried to bring it yet.
    pub fn is_new(&self, item: &Item) -> bool {
        !self.lock().contains_key(item)
    }

    /// Tells whether it was brought.
    pub fn is_done(&self, item: &Item) -> bool {
        matches!(self.lock().get(item), Some(Note::Done))
    }

    /// Notes that it was brought.
    pub fn done(&self, item: Item) {
        self.lock().insert(item, Note::Done);
    }

    /// Notes that it was not, so that it is left alone for a while; tells whether that is new, or the reason is.
    pub fn failed(&self, item: Item, error: &str) -> bool {
        let mut notes = self.lock();
        let (wait, is_new) = match notes.get(&item) {
            Some(Note::Failed { wait, error: last, .. }) => ((*wait * 2).min(LONGEST), last != error),
            _ => (BACKOFF, true),
        };
        notes.insert(item, Note::Failed { wait, again: clock::instant() + wait, error: error.to_owned() });
        is_new
    }

    /// Forgets the files of a place that are not there, or not as they were.
    pub fn keep(&self, place: &'static str, found: &[(PathBuf, Seen)]) {
        let is_there = |item: &Item| found.iter().any(|(path, seen)| *path == item.path && *seen == item.seen);
        self.lock().retain(|item, _| item.place != place || is_there(item));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Item, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
