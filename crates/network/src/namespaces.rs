//! Makes the namespaces of a pod, held by bind mounts instead of a process (ADR 3).

pub mod users;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
    unistd::{gettid, sethostname},
};
use rustix::{process::Uid, thread::set_thread_res_uid};
use stanchion_runtime::IdRange;
use stanchion_untrusted::{Links, make_directory, open};

use users::Holder;

/// Namespaces of a pod, pinned in a directory as `net`, `ipc`, `uts`, `pid` and `user`, and its `shm`.
#[derive(Clone, Debug)]
pub struct Namespaces {
    directory: PathBuf,
}

impl Namespaces {
    /// Returns the namespaces that are pinned in a directory, or will be.
    #[must_use]
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the file on which a namespace is pinned.
    #[must_use]
    pub fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(kind)
    }

    /// Creates and pins the pod's own namespaces. A user namespace owns the others; `program`, which does nothing, runs
    /// to create it.
    ///
    /// # Errors
    /// The kernel refuses a namespace or a mount, or files cannot be made; namespaces pinned before stay.
    pub fn pin(&self, own: Own, hostname: &str, program: &Path) -> io::Result<()> {
        make_directory(&self.directory)?;
        let kinds: Vec<_> = own.kinds().collect();
        for (kind, _) in &kinds {
            File::create(self.path(kind))?;
        }
        let flags = kinds.iter().fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
        let pin_all = |namespaces: &str| {
            kinds.iter().try_for_each(|(kind, _)| pin(&format!("{namespaces}/{kind}"), &self.path(kind)))
        };
        match own.users {
            // A separate thread takes its namespaces with it when it ends.
            None => on_thread(|| {
                unshare(flags)?;
                if own.network {
                    sethostname(hostname)?;
                }
                pin_all(&format!("/proc/self/task/{}/ns", gettid()))
            })?,
            // The kernel refuses a user namespace to a single thread of a process.
            Some(users) => {
                let holder = Holder::start(program, flags, users)?;
                pin_all(&format!("/proc/{}/ns", holder.id()))?;
                if own.network {
                    on_thread(|| {
                        setns(open(self.path("uts"), Links::Follow)?, CloneFlags::CLONE_NEWUTS)?;
                        Ok(sethostname(hostname)?)
                    })?;
                }
            }
        }
        if own.ipc {
            let path = self.path(SHARED_MEMORY);
            fs::create_dir(&path)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
            let root = own.users.map_or(0, |users| users.first);
            let options = format!("mode=1777,size=65536k,uid={root},gid={root}");
            mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str()))?;
        }
        Ok(())
    }

    /// Pins the first PID namespace, that of `process`.
    ///
    /// # Errors
    /// The process is gone, or its namespace cannot be mounted.
    pub fn pin_pid(&self, process: u32) -> io::Result<()> {
        let path = self.path(PROCESSES);
        File::create(&path)?;
        pin(&format!("/proc/{process}/ns/pid"), &path)
    }

    /// Sets kernel parameters in the pod's namespaces: `/proc/sys` shows the namespaces of the process that opens its
    /// files.
    ///
    /// # Errors
    /// A namespace cannot be entered, or a parameter does not exist or does not take its value.
    pub fn set(&self, own: Own, sysctls: &[(String, String)]) -> io::Result<()> {
        let enter = |kind: &str, flag| setns(open(self.path(kind), Links::Follow)?, flag).map_err(io::Error::from);
        on_thread(|| {
            for (kind, flag) in own.kinds().filter(|(kind, _)| *kind != USERS) {
                enter(kind, flag)?;
            }
            sysctls.iter().try_for_each(|(path, value)| {
                let file = Path::new("/proc/sys").join(path);
                let write =
                    || fs::OpenOptions::new().write(true).open(&file).and_then(|mut it| it.write_all(value.as_bytes()));
                let written = match (write(), own.users) {
                    // Only the root of the user namespace may write some, whatever the node's root may do.
                    (Err(error), Some(users)) if error.kind() == io::ErrorKind::PermissionDenied => {
                        as_user(users.first, write)
                    }
                    (written, _) => written,
                };
                written.map_err(|error| io::Error::new(error.kind(), format!("{} = {value}: {error}", file.display())))
            })
        })
    }

    /// Returns whether all namespaces are still pinned; a reboot or another program's clean-up ends that.
    #[must_use]
    pub fn are_pinned(&self, own: Own, has_processes: bool) -> bool {
        own.kinds().all(|(kind, _)| is_pinned(&self.path(kind))) && (!has_processes || is_pinned(&self.path(PROCESSES)))
    }

    /// Unpins all namespaces; succeeds for those that are gone.
    ///
    /// # Errors
    /// Their files cannot be removed.
    pub fn unpin(&self) -> io::Result<()> {
        for kind in KINDS.iter().map(|(kind, _)| *kind).chain([PROCESSES, SHARED_MEMORY]) {
            let path = self.path(kind);
            // Each is mounted once, but a half-made pod may have been made again.
            while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
            let removed = if kind == SHARED_MEMORY { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            remove(removed)?;
        }
        remove(fs::remove_dir(&self.directory))
    }
}

/// Namespaces that a pod does not share with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// `true` if the pod has its own network, and with it its own UTS namespace.
    pub network: bool,
    /// `true` if the pod has its own IPC and shared memory.
    pub ipc: bool,
    /// UIDs and GIDs on the node of the pod's own users; `None` if it has the node's users.
    pub users: Option<IdRange>,
}

/// Kubernetes' default: own network and IPC namespaces, the node's users.
impl Default for Own {
    fn default() -> Self {
        Self { network: true, ipc: true, users: None }
    }
}

impl Own {
    fn kinds(self) -> impl Iterator<Item = (&'static str, CloneFlags)> {
        KINDS.into_iter().filter(move |(kind, _)| match *kind {
            USERS => self.users.is_some(),
            "ipc" => self.ipc,
            _ => self.network,
        })
    }
}

/// Namespaces that can be pinned. The UTS namespace goes with the network, as in Kubernetes.
const KINDS: [(&str, CloneFlags); 4] = [
    (USERS, CloneFlags::CLONE_NEWUSER),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
];
/// File name of the pinned user namespace.
pub const USERS: &str = "user";
/// File name of the PID namespace that all containers of a pod share.
const PROCESSES: &str = "pid";
/// Directory name of a pod's shared memory, which has Kubernetes' size.
pub const SHARED_MEMORY: &str = "shm";

fn pin(source: &str, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
}

/// Runs `act` on this thread as another user of the node.
fn as_user<T>(user: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (root, user) = (Uid::ROOT, Uid::from_raw(user));
    set_thread_res_uid(root, user, root)?;
    let done = act();
    set_thread_res_uid(root, root, root)?;
    done
}

/// Returns whether `path` holds a namespace.
#[must_use]
pub fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|it| it.filesystem_type() == NSFS_MAGIC)
}

/// Runs `act` inside a network namespace.
///
/// # Errors
/// The namespace cannot be entered, or `act` fails.
pub fn inside<T: Send>(namespace: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = open(namespace, Links::Follow)?;
    on_thread(|| {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        act()
    })
}

fn on_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("st-namespace".to_owned()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread for a namespace panicked")))
    })
}

fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
