//! Namespaces of a pod, held by bind mounts instead of a process (ADR 3).

pub(crate) mod users;

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
use stanchion_sdk::{layers::make_directory, runtime::IdRange};

use crate::names;
use stanchion_untrusted::{Links, open};
use users::Holder;

/// A pod's namespaces below a directory: `net`, `ipc`, `uts`, `pid` and `user`, and its `shm`.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    directory: PathBuf,
}

impl Namespaces {
    pub fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The file that holds one of them.
    pub fn path(&self, kind: &str) -> PathBuf {
        self.directory.join(kind)
    }

    /// Makes those that a pod has for itself, and pins them. Users of its own own the others; `program` is one that does
    /// nothing, and is run to have them.
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
            // A thread of its own: it takes its namespaces with it when it ends.
            None => on_thread(|| {
                unshare(flags)?;
                if own.network {
                    sethostname(hostname)?;
                }
                pin_all(&format!("/proc/self/task/{}/ns", gettid()))
            })?,
            // The kernel gives no users to a thread.
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

    /// Pins the namespace that a process is the first of.
    pub fn pin_pid(&self, process: u32) -> io::Result<()> {
        let path = self.path(PROCESSES);
        File::create(&path)?;
        pin(&format!("/proc/{process}/ns/pid"), &path)
    }

    /// Sets parameters of the kernel inside. Its files show the namespaces of whoever opens them.
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
                    // Some are for the root of the namespace alone, whatever the node's root may do.
                    (Err(error), Some(users)) if error.kind() == io::ErrorKind::PermissionDenied => {
                        as_user(users.first, write)
                    }
                    (written, _) => written,
                };
                written.map_err(|error| io::Error::new(error.kind(), format!("{} = {value}: {error}", file.display())))
            })
        })
    }

    /// Whether they are still held; a reboot or somebody's clean-up ends that.
    pub fn are_pinned(&self, own: Own, has_processes: bool) -> bool {
        own.kinds().all(|(kind, _)| is_pinned(&self.path(kind))) && (!has_processes || is_pinned(&self.path(PROCESSES)))
    }

    /// Lets them go. Nothing happens to what is gone.
    pub fn unpin(&self) -> io::Result<()> {
        for kind in KINDS.iter().map(|(kind, _)| *kind).chain([PROCESSES, SHARED_MEMORY]) {
            let path = self.path(kind);
            // Mounted once each, but a half made pod may have been made again.
            while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
            let removed = if kind == SHARED_MEMORY { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            remove(removed)?;
        }
        remove(fs::remove_dir(&self.directory))
    }
}

/// What a pod has for itself and does not share with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub network: bool,
    pub ipc: bool,
    pub users: Option<IdRange>,
}

/// What Kubernetes gives a pod that asks for nothing.
impl Default for Own {
    fn default() -> Self {
        Self { network: true, ipc: true, users: None }
    }
}

impl Own {
    /// As the labels of a sandbox's record tell.
    pub fn noted<'a>(label: impl Fn(&str) -> Option<&'a String>) -> Self {
        let is_own = |name: &str| label(name).is_none_or(|it| it != "host");
        Self { network: is_own(names::NETWORK), ipc: is_own(names::IPC), users: users::noted(label(names::USERS)) }
    }

    fn kinds(self) -> impl Iterator<Item = (&'static str, CloneFlags)> {
        KINDS.into_iter().filter(move |(kind, _)| match *kind {
            USERS => self.users.is_some(),
            "ipc" => self.ipc,
            _ => self.network,
        })
    }
}

/// Those that can be pinned. Host names go with the network, as they do in Kubernetes.
const KINDS: [(&str, CloneFlags); 4] = [
    (USERS, CloneFlags::CLONE_NEWUSER),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
];
/// Where a pod's users are pinned.
pub(crate) const USERS: &str = "user";
/// Where processes are pinned that all containers of a pod see.
const PROCESSES: &str = "pid";
/// Where a pod's shared memory is, of the size that Kubernetes gives it.
pub(crate) const SHARED_MEMORY: &str = "shm";

fn pin(source: &str, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
}

/// Does something as another user of the node, on this thread.
fn as_user<T>(user: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (root, user) = (Uid::ROOT, Uid::from_raw(user));
    set_thread_res_uid(root, user, root)?;
    let done = act();
    set_thread_res_uid(root, root, root)?;
    done
}

/// Whether a file holds a namespace.
pub(crate) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|it| it.filesystem_type() == NSFS_MAGIC)
}

/// Runs something inside a network namespace.
pub(crate) fn inside<T: Send>(namespace: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
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
