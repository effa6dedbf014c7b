//! Namespaces of a pod, held by bind mounts instead of a process (ADR 3).

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

/// A pod's namespaces below a directory: `net`, `ipc`, `uts` and `pid`, and its `shm`.
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

    /// Makes those that a pod has for itself, and pins them.
    pub fn pin(&self, own: Own, hostname: &str) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let kinds: Vec<_> = own.kinds().collect();
        for (kind, _) in &kinds {
            File::create(self.path(kind))?;
        }
        // A thread of its own: it takes its namespaces with it when it ends.
        on_thread(|| {
            let flags = kinds.iter().fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
            unshare(flags)?;
            if own.network {
                sethostname(hostname)?;
            }
            for (kind, _) in &kinds {
                let source = format!("/proc/self/task/{}/ns/{kind}", gettid());
                pin(&source, &self.path(kind))?;
            }
            Ok(())
        })?;
        if own.ipc {
            let path = self.path(SHARED_MEMORY);
            fs::create_dir(&path)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
            mount(Some("shm"), &path, Some("tmpfs"), flags, Some("mode=1777,size=65536k"))?;
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
        let enter = |kind: &str, flag| setns(File::open(self.path(kind))?, flag).map_err(io::Error::from);
        on_thread(|| {
            for (kind, flag) in own.kinds() {
                enter(kind, flag)?;
            }
            sysctls.iter().try_for_each(|(path, value)| {
                let file = Path::new("/proc/sys").join(path);
                let written =
                    fs::OpenOptions::new().write(true).open(&file).and_then(|mut it| it.write_all(value.as_bytes()));
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
}

impl Own {
    fn kinds(self) -> impl Iterator<Item = (&'static str, CloneFlags)> {
        KINDS.into_iter().filter(move |(kind, _)| if *kind == "ipc" { self.ipc } else { self.network })
    }
}

/// Those that can be pinned without a process. Host names go with the network, as they do in Kubernetes.
const KINDS: [(&str, CloneFlags); 3] =
    [("ipc", CloneFlags::CLONE_NEWIPC), ("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS)];
/// Where processes are pinned that all containers of a pod see.
const PROCESSES: &str = "pid";
/// Where a pod's shared memory is, of the size that Kubernetes gives it.
pub(crate) const SHARED_MEMORY: &str = "shm";

fn pin(source: &str, target: &Path) -> io::Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(io::Error::from)
}

/// Whether a file holds a namespace.
pub(crate) fn is_pinned(path: &Path) -> bool {
    statfs(path).is_ok_and(|it| it.filesystem_type() == NSFS_MAGIC)
}

/// Runs something inside a network namespace.
pub(crate) fn inside<T: Send>(namespace: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(namespace)?;
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
