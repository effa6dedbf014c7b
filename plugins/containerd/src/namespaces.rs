//! Namespaces of a pod, held by bind mounts instead of a process (ADR 3).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, statfs},
    unistd::{gettid, sethostname},
};

/// A pod's namespaces below a directory: `net`, `ipc` and `uts`.
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

    /// Makes the namespaces and pins them. With the node's network there is nothing but IPC to make.
    pub fn pin(&self, hostname: Option<&str>) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let kinds = kinds(hostname.is_some());
        for (kind, _) in kinds {
            File::create(self.path(kind))?;
        }
        // A thread of its own: it takes its namespaces with it when it ends.
        on_thread(|| {
            let flags = kinds.iter().fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
            unshare(flags)?;
            if let Some(hostname) = hostname {
                sethostname(hostname)?;
            }
            for (kind, _) in kinds {
                let source = format!("/proc/self/task/{}/ns/{kind}", gettid());
                mount(Some(source.as_str()), &self.path(kind), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            }
            Ok(())
        })
    }

    /// Whether they are still held; a reboot or somebody's clean-up ends that.
    pub fn are_pinned(&self, own_network: bool) -> bool {
        kinds(own_network).iter().all(|(kind, _)| is_pinned(&self.path(kind)))
    }

    /// Lets them go. Nothing happens to what is gone.
    pub fn unpin(&self) -> io::Result<()> {
        for (kind, _) in kinds(true) {
            let path = self.path(kind);
            // Mounted once each, but a half made pod may have been made again.
            while umount2(&path, MntFlags::MNT_DETACH).is_ok() {}
            remove(fs::remove_file(&path))?;
        }
        remove(fs::remove_dir(&self.directory))
    }
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

fn kinds(own_network: bool) -> &'static [(&'static str, CloneFlags)] {
    const ALL: [(&str, CloneFlags); 3] =
        [("ipc", CloneFlags::CLONE_NEWIPC), ("net", CloneFlags::CLONE_NEWNET), ("uts", CloneFlags::CLONE_NEWUTS)];
    if own_network { &ALL } else { &ALL[..1] }
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
