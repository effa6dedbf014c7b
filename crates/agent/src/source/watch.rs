//! Watches the sources' directories for changes, as the kernel reports them (inotify(7)).

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use rustix::io::Errno;
use stanchion_untrusted::read_kernel;

use crate::clock::{elapsed, instant};

/// Size of the buffer for events, bytes: one of the kernel's records has at most 272.
const BUFFER: usize = 4096;
/// Time without a write after which a file is read although its writer has not closed it. A file that is closed twice
/// within this time is being written in pieces, and is read when it has been quiet (R-INOT-5).
const QUIET_PERIOD: Duration = Duration::from_millis(250);

/// A change, which says when to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A file is complete, or something else has changed that is worth a read at once.
    Written,
    /// A file was removed; it may come back at once.
    Removed,
    /// A file is being written.
    BeingWritten,
}

/// Watcher of the sources and their parent directories.
pub(super) struct Watch {
    paths: Vec<PathBuf>,
    stream: Option<EventStream<Vec<u8>>>,
    watches: HashMap<WatchDescriptor, PathBuf>,
    /// Files that are still being written, with the time of the last write.
    writing: HashMap<PathBuf, Instant>,
    /// Time when each written file was last closed.
    closed: HashMap<PathBuf, Instant>,
    /// Reason why something is not watched.
    watch_error: Option<String>,
}

impl Watch {
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            stream: None,
            watches: HashMap::new(),
            writing: HashMap::new(),
            closed: HashMap::new(),
            watch_error: None,
        }
    }

    /// Returns whether the kernel reports changes; if not, only frequent reads find them (R-INOT-8).
    pub fn is_working(&self) -> bool {
        self.watch_error.is_none()
    }

    /// Returns why the kernel does not report changes, and how to change that.
    pub fn watch_error(&self) -> Option<&str> {
        self.watch_error.as_deref()
    }

    /// Puts a watch on every directory that exists now. A directory that was moved away loses its watch, as the path
    /// counts.
    pub fn renew(&mut self) {
        self.watch_error = None;
        let Some(stream) = self.open() else { return };
        let mut found = HashMap::new();
        for path in &self.paths {
            let directory = if path.is_file() { None } else { Some(path.clone()) };
            for target in directory.into_iter().chain(path.parent().map(ToOwned::to_owned)) {
                match stream.watches().add(&target, mask()) {
                    Ok(watch) => drop(found.insert(watch, target)),
                    // Absent or unreadable: the parent's watch, or the next read, finds it.
                    Err(error) if !is_exhausted(&error) => {}
                    Err(error) => {
                        let what = format!("watching {}", target.display());
                        self.watch_error.get_or_insert_with(|| explain(&what, "max_user_watches", &error));
                    }
                }
            }
        }
        for old in self.watches.keys().filter(|old| !found.contains_key(*old)) {
            // Mostly the watch has gone with the directory.
            if let Err(error) = stream.watches().remove(old.clone()) {
                tracing::trace!(%error, "dropping an old watch");
            }
        }
        self.watches = found;
        self.stream = Some(stream);
    }

    /// Returns the files that are still being written.
    pub fn being_written(&self) -> HashSet<PathBuf> {
        self.writing.keys().cloned().collect()
    }

    /// Returns when the first of these files will have been quiet for long enough.
    pub fn quiet_at(&self) -> Option<Instant> {
        self.writing.values().min().map(|last| *last + QUIET_PERIOD)
    }

    /// Counts files as finished that have been quiet for long enough: their writer keeps them open, or has written its
    /// last piece.
    pub fn settle(&mut self) {
        self.writing.retain(|_, last| elapsed(*last) + Duration::from_millis(5) < QUIET_PERIOD);
        self.closed.retain(|_, last| elapsed(*last) < QUIET_PERIOD);
    }

    /// Waits for the next change.
    ///
    /// *Cancel-safe:* it takes an event from the stream and acts on it in one step.
    pub async fn next(&mut self) -> Change {
        loop {
            let Some(stream) = &mut self.stream else { return std::future::pending().await };
            match stream.next().await {
                Some(Ok(event)) => {
                    if let Some(change) = self.classify(&event) {
                        return change;
                    }
                }
                Some(Err(error)) => tracing::warn!(%error, "reading file notifications failed"),
                None => {
                    self.stream = None;
                    self.watch_error = Some("the kernel reports no changes of files any more".to_owned());
                }
            }
        }
    }

    fn open(&mut self) -> Option<EventStream<Vec<u8>>> {
        if let Some(stream) = self.stream.take() {
            return Some(stream);
        }
        self.watches.clear();
        match Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER])) {
            Ok(stream) => Some(stream),
            Err(error) => {
                self.watch_error = Some(explain("watching anything", "max_user_instances", &error));
                None
            }
        }
    }

    fn classify(&mut self, event: &EventOwned) -> Option<Change> {
        let is_gone = EventMask::MOVE_SELF | EventMask::DELETE_SELF | EventMask::UNMOUNT;
        if event.mask.intersects(EventMask::Q_OVERFLOW | is_gone) {
            return Some(Change::Written);
        }
        let directory = self.watches.get(&event.wd)?;
        let name: &OsString = event.name.as_ref()?;
        let path = directory.join(name);
        // In a parent directory only the source itself matters.
        if !self.paths.contains(directory) && !self.paths.contains(&path) {
            return None;
        }
        let change = match () {
            () if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) => Change::Removed,
            () if event.mask.contains(EventMask::MODIFY) => Change::BeingWritten,
            // A link is complete when it is there; a new file will be closed by its writer.
            () if event.mask.contains(EventMask::CREATE) && is_new_file(&path) => Change::BeingWritten,
            () if event.mask.contains(EventMask::CLOSE_WRITE) && self.is_closed_again(&path) => Change::BeingWritten,
            () => Change::Written,
        };
        match change {
            Change::BeingWritten => drop(self.writing.insert(path, instant())),
            _ => drop(self.writing.remove(&path)),
        }
        Some(change)
    }

    /// Records that a writer has closed a file. Returns whether a writer had done so less than [`QUIET_PERIOD`] ago.
    fn is_closed_again(&mut self, path: &Path) -> bool {
        self.closed.insert(path.to_owned(), instant()).is_some_and(|last| elapsed(last) < QUIET_PERIOD)
    }
}

/// Returns whether the kernel allows no further watch or inotify instance.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

fn explain(what: &str, setting: &str, error: &io::Error) -> String {
    let now = read_kernel(format!("/proc/sys/fs/inotify/{setting}"));
    let now = now.ok().and_then(|now| now.trim().parse::<u64>().ok());
    let more = now.unwrap_or(0).saturating_mul(2).max(8192);
    let now = now.map_or_else(String::new, |now| format!(" (it is {now})"));
    format!(
        "the kernel refuses {what} for changes: {error}; raise its limit: sysctl -w fs.inotify.{setting}={more}{now}"
    )
}

fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MODIFY
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::EXCL_UNLINK
}

fn is_new_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|entry| entry.is_file() && entry.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // R-INOT-8. The child has a user namespace of its own, whose limit counts for nobody else.
    #[test]
    fn refused_watches_are_said_with_the_setting_that_helps() {
        let own = std::env::current_exe().expect("this program");
        let script = "echo 1 > /proc/sys/user/max_inotify_watches && exec \"$0\" --exact \
                      source::watch::tests::watches_in_its_environment";
        let child = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", script])
            .arg(own)
            .env("WATCH", std::env::temp_dir())
            .status();
        assert!(child.expect("unshare can be run").success());
    }

    /// Runs in a process of its own, started by the test above.
    #[tokio::test]
    async fn watches_in_its_environment() {
        let Some(path) = std::env::var_os("WATCH") else { return };
        let mut watch = Watch::new(vec![PathBuf::from(path)]);
        watch.renew();
        assert!(!watch.is_working());
        let watch_error = watch.watch_error().expect("the second watch is refused");
        assert!(watch_error.contains("sysctl -w fs.inotify.max_user_watches="), "{watch_error}");
        watch.renew();
        assert!(!watch.is_working());
    }
}
