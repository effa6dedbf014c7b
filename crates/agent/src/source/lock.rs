//! Lock file of a kubelet (its `--lock-file`). Its holder runs the kubelet's pods.
//!
//! A kubelet with such a file waits for the lock when it starts, before it reads any manifest, and keeps it until it
//! ends. The agent holds the lock while the pods run here, sees the kubelet waiting in `/proc/locks` (proc_locks(5)),
//! and releases it once none of the pods is left. It does not open the file while another process holds the lock: with
//! `--exit-on-lock-contention` a kubelet would end.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, major, minor, statx};
use stanchion_untrusted::read_kernel;

/// The kernel's table of file locks (proc_locks(5)).
const LOCKS: &str = "/proc/locks";
/// The mounts of this process's namespace (proc_pid_mountinfo(5)).
const MOUNTS: &str = "/proc/self/mountinfo";

/// A kubelet's lock file, and the state of the lock at the last [`check`](Lock::check).
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    held: Option<File>,
    state: LockState,
    /// Reason why the lock could not be checked or acquired.
    error: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LockState {
    /// `true` if a process holds the lock.
    held: bool,
    /// `true` if a process waits for it.
    awaited: bool,
}

impl Lock {
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: None, state: LockState::default(), error: None }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether this agent holds the lock.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Returns whether this agent holds the lock and another process waits for it.
    pub fn is_awaited(&self) -> bool {
        self.is_held() && self.state.awaited
    }

    /// Returns whether another process holds the lock.
    pub fn is_anothers(&self) -> bool {
        !self.is_held() && self.state.held
    }

    /// Returns why the lock could not be checked or acquired.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Finds out whether the lock is held and whether a process waits for it.
    pub fn check(&mut self) {
        let file = match fs::metadata(&self.path) {
            Ok(file) => Some((file.dev(), file.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return self.error = Some(error.to_string()),
        };
        // The lock is on the file, not on its path: if the path now names another, a kubelet would not wait for ours.
        let is_other = |held: &mut File| held.metadata().ok().map(|held| (held.dev(), held.ino())) != file;
        self.held.take_if(is_other);
        match read_kernel(LOCKS) {
            Ok(locks) => {
                let of = |(device, inode)| {
                    let device = superblock(&self.path).unwrap_or((major(device), minor(device)));
                    LockState::of(&locks, device, inode)
                };
                self.state = file.map_or_else(LockState::default, of);
            }
            Err(error) => self.error = Some(format!("{LOCKS}: {error}")),
        }
    }

    /// Acquires the lock, unless another process holds it.
    pub fn acquire(&mut self) {
        if self.is_held() || self.is_anothers() {
            return;
        }
        match self.open() {
            Ok(held) => {
                self.state.held = true;
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

    /// Releases the lock to the process that waits for it.
    pub fn release(&mut self) {
        if self.held.take().is_some() {
            self.state = LockState { held: self.state.awaited, awaited: false };
        }
    }
}

impl LockState {
    /// Finds the locks of a file in `locks`. A line is `1: FLOCK  ADVISORY  WRITE 42 fe:00:1234 0 EOF`; `->` after the
    /// number marks a waiting process.
    fn of(locks: &str, (major, minor): (u32, u32), inode: u64) -> Self {
        let file = format!("{major:02x}:{minor:02x}:{inode}");
        let mut state = Self::default();
        for line in locks.lines() {
            let fields: Vec<_> = line.split_whitespace().skip(1).collect();
            let waits = fields.first() == Some(&"->");
            let fields = &fields[usize::from(waits)..];
            if fields.first() == Some(&"FLOCK") && fields.contains(&file.as_str()) {
                state.awaited |= waits;
                state.held |= !waits;
            }
        }
        state
    }
}

/// Returns the device of a file's file system, as `/proc/locks` shows it; `None` where the kernel does not report it
/// (before Linux 5.8). On btrfs and on overlayfs, `stat` returns another one. It does not open the file.
fn superblock(path: &Path) -> Option<(u32, u32)> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
    let has_id = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    device_of(&read_kernel(MOUNTS).ok()?, found.stx_mnt_id).filter(|_| has_id)
}

/// Returns the device of a mount. A line of `mounts` is `36 35 0:31 /sub /mnt rw - btrfs /dev/sda rw`.
fn device_of(mounts: &str, mount: u64) -> Option<(u32, u32)> {
    let mount = mount.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(mount.as_str()))?;
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
            lock.check();
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
        lock.check();
        assert!(!lock.is_anothers() && !lock.is_held());
        lock.acquire();
        lock.check();
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
        lock.acquire();
        assert!(!lock.is_held(), "it is another's");
        drop(end);
        kubelet.join().expect("it ends");
        until(&mut lock, |lock| !lock.is_anothers()).await;
        lock.acquire();
        assert!(lock.is_held(), "{lock:?}");
    }

    #[test]
    fn a_lock_file_that_is_replaced_is_locked_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut lock = Lock::new(directory.path().join("kubelet.lock"));
        lock.acquire();
        fs::remove_file(lock.path()).expect("removed");
        lock.check();
        assert!(!lock.is_held());
        lock.acquire();
        assert!(lock.is_held() && lock.path().exists());
    }

    #[test]
    fn what_cannot_be_had_is_told() {
        let mut lock = Lock::new("/proc/nowhere/kubelet.lock".into());
        lock.check();
        lock.acquire();
        assert!(!lock.is_held() && lock.error().is_some(), "{lock:?}");
    }

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let locks = "1: FLOCK  ADVISORY  WRITE 708 fe:00:1234 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 709 fe:00:1234 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 710 fe:00:1235 0 EOF\n3: FLOCK  ADVISORY  READ 711 fe:00:1236 0 EOF\n";
        let device = (0xfe, 0);
        assert_eq!(LockState::of(locks, device, 1234), LockState { held: true, awaited: true });
        assert_eq!(LockState::of(locks, device, 1235), LockState::default(), "another kind of lock");
        assert_eq!(LockState::of(locks, device, 1236), LockState { held: true, awaited: false });
        assert_eq!(LockState::of(locks, device, 12), LockState::default());
    }

    #[test]
    fn a_lock_is_found_by_the_device_of_its_file_system() {
        let mounts = "36 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      4 36 0:593 / /var rw,relatime shared:1 - overlay o rw,lowerdir=/l\n\
                      236 36 0:31 /var /data\\040x rw - btrfs /dev/vdb rw,subvol=/var\n\
                      40 36 broken\n";
        // `stat` gives the subvolume's or the layer's device, e.g. 0:595, which neither table has.
        let locks = "1: FLOCK  ADVISORY  WRITE 708 00:251:8 0 EOF\n2: FLOCK  ADVISORY  WRITE 7 00:1f:257 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 00:1f:257 0 EOF\n3: FLOCK  ADVISORY  WRITE 9 fe:00:99 0 EOF\n";
        for (mount, inode, state) in [
            (4, 8, Some((true, false))),
            (236, 257, Some((true, true))),
            (36, 99, Some((true, false))),
            (36, 257, Some((false, false))),
            (40, 8, None),
            (3, 8, None),
        ] {
            let found = device_of(mounts, mount).map(|device| LockState::of(locks, device, inode));
            assert_eq!(found.map(|state| (state.held, state.awaited)), state, "{mount}");
        }
        assert_eq!(superblock(Path::new("/nowhere/kubelet.lock")), None);
        superblock(&std::env::temp_dir()).expect("the kernel tells");
    }
}
