//! Objects of one kind with their revisions, and the changes since a revision, for list and watch as in Kubernetes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::limits::DELETIONS;

/// Objects of one kind, by key. All kinds of a board share one count of revisions.
///
/// A change is not kept by itself: an object knows its latest revision, and a reader that comes back gets the object as it is now,
/// as a Kubernetes watch may do. Only deletions are kept, the latest [`DELETIONS`]; so the memory does not grow with the
/// number of changes.
#[derive(Debug)]
pub(crate) struct Objects<K, V> {
    present: BTreeMap<K, Present<V>>,
    deletions: VecDeque<Deletion<V>>,
    /// Latest revision whose change is forgotten.
    forgotten: u64,
}

#[derive(Debug)]
struct Present<V> {
    created: u64,
    revision: u64,
    object: Arc<V>,
}

#[derive(Debug)]
struct Deletion<V> {
    created: u64,
    revision: u64,
    object: Arc<V>,
}

/// Objects at a revision.
#[derive(Clone, Debug)]
pub struct Listed<V> {
    /// Latest revision of the whole board.
    pub revision: u64,
    /// The objects by key, each with the revision of its last change.
    pub items: Vec<(u64, Arc<V>)>,
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<V> {
    /// Revision of the change.
    pub revision: u64,
    /// Kind of the change, as seen by a reader that knows the objects of the revision that it named.
    pub kind: ChangeKind,
    /// The object as it is now, or as it was when it was deleted.
    pub object: Arc<V>,
}

/// Kind of a change, as in a Kubernetes watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The object is new.
    Added,
    /// The object has changed.
    Modified,
    /// The object is gone.
    Deleted,
}

/// Error for a revision whose later changes are no longer known, or not yet known: the reader has to list again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld;

impl<K: Ord, V: PartialEq> Objects<K, V> {
    /// Creates an empty set on a board that begins at `revision`.
    pub fn new(revision: u64) -> Self {
        Self { present: BTreeMap::new(), deletions: VecDeque::new(), forgotten: revision }
    }

    /// Puts an object; `next` returns its revision, and is called only if something has changed. Returns whether it
    /// has.
    pub fn put(&mut self, key: K, object: V, next: impl FnOnce() -> u64) -> bool {
        match self.present.get_mut(&key) {
            Some(present) if *present.object == object => return false,
            Some(present) => (present.revision, present.object) = (next(), Arc::new(object)),
            None => {
                let revision = next();
                self.present.insert(key, Present { created: revision, revision, object: Arc::new(object) });
            }
        }
        true
    }

    /// Removes an object; `next` returns the revision of its deletion. Returns whether there was one.
    pub fn remove(&mut self, key: &K, next: impl FnOnce() -> u64) -> bool {
        let Some(Present { created, object, .. }) = self.present.remove(key) else { return false };
        self.deletions.push_back(Deletion { created, revision: next(), object });
        if DELETIONS.check_count(self.deletions.len()).is_err() {
            self.forgotten = self.deletions.pop_front().map_or(self.forgotten, |oldest| oldest.revision);
        }
        true
    }

    /// Returns an object.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.present.get(key).map(|present| &present.object)
    }

    /// Returns all objects, by key.
    pub fn all(&self) -> impl Iterator<Item = &Arc<V>> {
        self.present.values().map(|present| &present.object)
    }

    /// Returns all objects with their revisions, by key.
    pub fn list(&self, revision: u64) -> Listed<V> {
        let items = self.present.values().map(|present| (present.revision, Arc::clone(&present.object)));
        Listed { revision, items: items.collect() }
    }

    /// Returns the changes after the revision `since`, in their order; `latest` is the latest revision of the board.
    ///
    /// # Errors
    /// Not all of them are known.
    pub fn since(&self, since: u64, latest: u64) -> Result<Vec<Change<V>>, TooOld> {
        if !(self.forgotten..=latest).contains(&since) {
            return Err(TooOld);
        }
        // The reader never saw an object that came and went again meanwhile.
        let deleted = self.deletions.iter().filter(|it| it.revision > since && it.created <= since);
        let deleted = deleted.map(|it| (it.revision, ChangeKind::Deleted, &it.object));
        let present = self.present.values().filter(|it| it.revision > since).map(|it| {
            let kind = if it.created > since { ChangeKind::Added } else { ChangeKind::Modified };
            (it.revision, kind, &it.object)
        });
        let change = |(revision, kind, object): (u64, ChangeKind, &Arc<V>)| {
            let object = Arc::clone(object);
            Change { revision, kind, object }
        };
        let mut changes: Vec<_> = deleted.chain(present).map(change).collect();
        changes.sort_by_key(|change| change.revision);
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::{ChangeKind::*, *};

    /// A board of one kind.
    struct Log {
        objects: Objects<&'static str, u32>,
        latest: u64,
    }

    impl Log {
        fn put(&mut self, key: &'static str, value: u32) -> bool {
            self.objects.put(key, value, || next(&mut self.latest))
        }

        fn remove(&mut self, key: &'static str) -> bool {
            self.objects.remove(&key, || next(&mut self.latest))
        }

        fn since(&self, since: u64) -> Result<Vec<(u64, ChangeKind, u32)>, TooOld> {
            let changes = self.objects.since(since, self.latest)?;
            Ok(changes.iter().map(|change| (change.revision, change.kind, *change.object)).collect())
        }
    }

    fn next(latest: &mut u64) -> u64 {
        *latest += 1;
        *latest
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_has_changed_meanwhile() {
        let mut log = Log { objects: Objects::new(100), latest: 100 };
        assert!(log.put("a", 1) && log.put("b", 1));
        assert!(!log.put("a", 1), "the same again is no change");
        assert_eq!(log.objects.list(log.latest).items.iter().map(|item| item.0).collect::<Vec<_>>(), [101, 102]);
        assert!(log.put("a", 2) && log.put("c", 1) && log.remove("b") && !log.remove("b"));
        assert_eq!(log.since(102), Ok(vec![(103, Modified, 2), (104, Added, 1), (105, Deleted, 1)]));
        assert_eq!(log.since(100), Ok(vec![(103, Added, 2), (104, Added, 1)]), "the deleted one was never seen");
        assert_eq!(log.since(104), Ok(vec![(105, Deleted, 1)]));
        assert_eq!(log.since(105), Ok(vec![]));
        assert!(log.put("b", 7));
        assert_eq!(log.since(104), Ok(vec![(105, Deleted, 1), (106, Added, 7)]), "another of the same name");
    }

    #[test]
    fn what_is_not_known_any_more_or_not_yet_is_to_be_listed_again() {
        let mut log = Log { objects: Objects::new(100), latest: 100 };
        assert_eq!((log.since(99), log.since(101)), (Err(TooOld), Err(TooOld)));
        let most = u64::try_from(DELETIONS.size()).expect("a small number");
        for value in 0..=most {
            assert!(log.put("a", u32::try_from(value).expect("a small number")) && log.remove("a"));
        }
        // The first deletion, at 102, is forgotten.
        assert_eq!(log.since(101), Err(TooOld));
        assert_eq!(log.since(102).map(|changes| changes.len()), Ok(0));
        assert_eq!(log.since(103).map(|changes| changes.len()), Ok(1));
    }
}
