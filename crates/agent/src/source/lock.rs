//! Lock file of a kubelet (its `--lock-file`), held by whoever runs the kubelet's pods.
//!
//! A kubelet with such a file waits for the lock when it starts, before it looks at any pod, and keeps it until it
//! ends. We hold the lock while the pods run here, see the kubelet waiting in `/proc/locks` (proc_locks(5)), and let go
//! once none of the pods is left. We do not open the file while somebody else holds the lock: with
//! `--exit-on-lock-contention` a kubelet would end.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};
use stanchion_untrusted::read_kernel;

/// The kernel's table of file locks (proc_locks(5)).
const LOCKS: &str = "/proc/locks";

/// A kubelet's lock file, and the state of the lock at the last [`look`](Lock::look).
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    held: Option<File>,
    seen: Seen,
    /// Reason why the lock could not be looked at or taken.
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    /// `true` if a process holds the lock.
    held: bool,
    /// `true` if a process waits for it.
    awaited: bool,
}

impl Lock {
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: None, seen: Seen::default(), error: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether we hold the lock.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns whether we hold the lock and another process waits for it.
    pub fn is_awaited(&self) -> bool {
        self.is_held() && self.seen.awaited
    }

    /// Returns whether another process holds the lock.
    pub fn is_anothers(&self) -> bool {
        !self.is_held() && self.seen.held
    }

    /// Returns why the lock could not be looked at or taken.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Finds out whether the lock is held and whether anybody waits for it.
    pub fn look(&mut self) {
        let file = match fs::metadata(&self.path) {
            Ok(file) => Some((file.dev(), file.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return self.error = Some(error.to_string()),
        };
        // The lock is on the file, not on its path: if the path now names another, a kubelet would not wait for ours.
        let is_other = |held: &mut File| held.metadata().ok().map(|held| (held.dev(), held.ino())) != file;
        self.held.take_if(is_other);
        match read_kernel(LOCKS) {
            Ok(locks) => self.seen = file.map_or_else(Seen::default, |(device, inode)| Seen::of(&locks, device, inode)),
            Err(error) => self.error = Some(format!("{LOCKS}: {error}")),
        }
    }

    /// Takes the lock, unless another process holds it.
    pub fn take(&mut self) {
        if self.is_held() || self.is_anothers() {
            return;
        }
        match self.open() {
            Ok(held) => {
                self.seen.held = true;
                self.held = held;
                self.error = None;
            }
            Err(error) => self.error = Some(error.to_string()),
        }
    }

    fn open(&self) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Releases the lock to whoever waits for it.
    pub fn release(&mut self) {
        if self.held.take().is_some() {
            self.seen = Seen { held: self.seen.awaited, awaited: false };
        }
    }
}

impl Seen {
    /// Finds the locks of a file in `locks`. A line is `1: FLOCK  ADVISORY  WRITE 42 fe:00:1234 0 EOF`; `->` after the
    /// number marks a waiting process.
    fn of(locks: &str, device: u64, inode: u64) -> Self {
        let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
        let mut seen = Self::default();
        for line in locks.lines() {
            let fields: Vec<_> = line.split_whitespace().skip(1).collect();
            let waits = fields.first() == Some(&"->");
            let fields = &fields[usize::from(waits)..];
            if fields.first() == Some(&"FLOCK") && fields.contains(&file.as_str()) {
                seen.awaited |= waits;
                seen.held |= !waits;
            }
        }
        seen
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test measures")]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use tokio::time::sleep;

    use super::*;

    async fn until(lock: &mut Lock, is_so: impl Fn(&Lock) -> bool) {
        let begin = Instant::now();
        loop {
            lock.look();
            if is_so(lock) {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{lock:?}");
            sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn who_waits_is_seen_and_gets_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kubelet.lock");
        let mut lock = Lock::new(path.clone());
        lock.look();
        assert!(!lock.is_anothers() && !lock.is_held());
        lock.take();
        lock.look();
        assert!(lock.is_held() && !lock.is_awaited(), "{lock:?}");
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let kubelet = thread::spawn(move || {
            let file = File::options().read(true).write(true).open(path).expect("it is there");
            file.lock().expect("locked");
            ended.recv().ok();
        });
        until(&mut lock, Lock::is_awaited).await;
        lock.release();
        until(&mut lock, Lock::is_anothers).await;
        lock.take();
        assert!(!lock.is_held(), "it is another's");
        drop(end);
        kubelet.join().expect("it ends");
        until(&mut lock, |lock| !lock.is_anothers()).await;
        lock.take();
        assert!(lock.is_held(), "{lock:?}");
    }

    #[test]
    fn a_lock_file_that_is_replaced_is_locked_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut lock = Lock::new(directory.path().join("kubelet.lock"));
        lock.take();
        fs::remove_file(lock.path()).expect("removed");
        lock.look();
        assert!(!lock.is_held());
        lock.take();
        assert!(lock.is_held() && lock.path().exists());
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let mut lock = Lock::new("/proc/nowhere/kubelet.lock".into());
        lock.look();
        lock.take();
        assert!(!lock.is_held() && lock.error().is_some(), "{lock:?}");
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let locks = "1: FLOCK  ADVISORY  WRITE 708 fe:00:1234 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 709 fe:00:1234 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 710 fe:00:1235 0 EOF\n3: FLOCK  ADVISORY  READ 711 fe:00:1236 0 EOF\n";
        let device = rustix::fs::makedev(0xfe, 0);
        assert_eq!(Seen::of(locks, device, 1234), Seen { held: true, awaited: true });
        assert_eq!(Seen::of(locks, device, 1235), Seen::default(), "another kind of lock");
        assert_eq!(Seen::of(locks, device, 1236), Seen { held: true, awaited: false });
        assert_eq!(Seen::of(locks, device, 12), Seen::default());
    }
}
